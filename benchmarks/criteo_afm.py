"""AFM on the real Criteo rows: base, control arm, truncation only, AFM with fine-tuning; test AUC over seeds.

    python benchmarks/criteo_afm.py --seeds 3

DeepFM (d 16, MLP 400x3), one epoch. AFM: ranks 64/64 in the second and third MLP layer, tables 16 -> 4, one epoch of
fine-tuning after each of the two stages. The control arm is the base model with the same two epochs of fine-tuning and nothing
compressed. Every arm keeps the best checkpoint by validation AUC, step 0 included. Each seed draws its own split, initialisation
and row order. Fine-tuning is tried on the training rows again (the paper) and on a tenth of the rows held out for it, which the
base model never saw.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from common import markdown_table, real_data, write_json

from ctrlab.compression.fold import fold
from ctrlab.compression.pipeline import compress_and_finetune
from ctrlab.data.catalog import DATASETS
from ctrlab.data.configs import SplitConfig
from ctrlab.data.dataset import EncodedDataset
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.decomposition.collect import collect_spectra
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.models.base import CTRModel, build_model
from ctrlab.models.configs import DeepFMConfig
from ctrlab.models.cost import measure_cost
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressConfig
from ctrlab.plans.ranks import plan_ranks
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit

RANKS = {"mlp.2": 64, "mlp.4": 64, "embedding.*": 4}
SPLITS = {
    "train": SplitConfig(train=0.8, valid=0.1, test=0.1),
    "finetune": SplitConfig(train=0.7, valid=0.1, test=0.1, finetune=0.1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--finetune-rates", type=float, nargs="+", default=[1e-3, 2e-4])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "criteo.tsv"
        frame = pl.read_parquet(real_data("criteo_137k.parquet")).fill_null("")
        frame.write_csv(table, separator="\t", include_header=False, quote_style="never")
        for rows in SPLITS:
            for seed in range(args.seeds):
                results += run_seed(table, Path(folder) / f"{rows}-{seed}", rows, seed, args)
                print(results[-1], flush=True)
    print(summary(results))
    print("written to", write_json("criteo_afm", {"settings": vars(args), "runs": results}))


def run_seed(table: Path, folder: Path, rows: str, seed: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All arms of one seed, one row a fine-tuning rate."""
    split = SPLITS[rows].replace(seed=seed)
    dataset = encode_dataset(DATASETS["criteo"].config_for(str(table), split), folder)
    torch.manual_seed(seed)
    untrained = build_model(DeepFMConfig(embed_dim=16, mlp_dims=(400, 400, 400)), dataset.schema)
    started = FitConfig(
        epochs=1, batch_size=args.batch_size, learning_rate=args.learning_rate, optimizer="lazy_adam", monitor="auc", seed=seed
    )
    base = fit(untrained, dataset, started).model
    spectra = collect_spectra(base, dataset)
    plan = plan_ranks(profile_model(base), spectra, ranks=RANKS)
    truncated = compress_and_finetune(base, dataset, CompressConfig(plan=plan), spectra).model
    common = {"rows": rows, "seed": seed, "base": auc(base, dataset), "truncated": auc(truncated, dataset)}
    common["smaller"] = measure_cost(base).parameters / measure_cost(fold(truncated)).parameters
    found = []
    for rate in args.finetune_rates:
        tuning = started.replace(learning_rate=rate, seed=seed + 1000, rows=rows, keep_initial=True)
        afm = compress_and_finetune(base, dataset, CompressConfig(plan=plan, finetune=tuning), spectra).model
        control = fit(fit(base, dataset, tuning).model, dataset, tuning).model
        found.append({**common, "rate": rate, "control": auc(control, dataset), "afm": auc(fold(afm), dataset)})
    return found


def auc(model: CTRModel, dataset: EncodedDataset) -> float:
    """Test AUC."""
    return evaluate_model(model, dataset.split("test")).auc


def summary(results: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, a row per fine-tuning rows and rate."""
    arms = ("base", "control", "truncated", "afm")
    lines = []
    for rows, rate in sorted({(row["rows"], row["rate"]) for row in results}, reverse=True):
        runs = [row for row in results if (row["rows"], row["rate"]) == (rows, rate)]
        cells = [spread([run[arm] for run in runs]) for arm in arms]
        gaps = [spread([run["afm"] - run[arm] for run in runs], signed=True) for arm in ("base", "control")]
        smaller = np.mean([run["smaller"] for run in runs])
        lines.append([rows, f"{rate:g}", *cells, *gaps, f"{smaller:.2f}x"])
    headers = ["fine-tuned on", "rate", *arms[:2], "truncation only", "AFM", "AFM - base", "AFM - control", "smaller"]
    return markdown_table(headers, lines)


def spread(values: list[float], *, signed: bool = False) -> str:
    """Mean ± standard deviation, four digits."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else float("nan")
    return f"{np.mean(values):{'+' if signed else ''}.4f} ± {deviation:.4f}"


if __name__ == "__main__":
    main()
