"""Which fine-tuning helps, and which harms: one setting changed at a time, on three real datasets.

    python benchmarks/bases.py --out runs/bases --seeds 3                # first: the originals
    python benchmarks/finetune_defaults.py --out runs/bases --seeds 3

AFM at ranks 64/64 in the second and third MLP layer and a quarter of the width in every table. Each row of the table is one way
to fine-tune, on the training rows again or on held-out rows; every figure is the change from truncation alone on the test rows,
in thousandths, mean and deviation over seeds. "not below" counts the runs that ended no worse than truncation in validation log
loss; choosing the best by log loss with step 0 among the candidates should make that all of them.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bases import ARCHITECTURES, NAMES, base_of
from common import markdown_table, write_json
from frappe_zoo import in_parallel, keep

from ctrlab.compression.pipeline import compress_and_finetune
from ctrlab.decomposition.collect import collect_spectra
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressConfig
from ctrlab.plans.ranks import plan_ranks
from ctrlab.training.configs import FINETUNE
from ctrlab.training.loop import fit

#: Changes to FINETUNE with the batch size of training; `order` belongs to the compression.
VARIANTS: dict[str, dict[str, Any]] = {
    "rate 1e-4": {"learning_rate": 1e-4},
    "rate 2e-4": {"learning_rate": 2e-4},
    "rate 5e-4": {"learning_rate": 5e-4},
    "rate 1e-3": {"learning_rate": 1e-3},
    "distillation 0.5": {"distillation": 0.5},
    "distillation 1": {"distillation": 1.0},
    "warm-up 50": {"warmup_steps": 50},
    "joint": {"order": "joint"},
    "tables first": {"order": "tables_first"},
    "best by AUC": {"monitor": "auc"},
}
ROWS = ("train", "finetune")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder that bases.py left its models in")
    parser.add_argument("--datasets", type=lambda text: text.split(","), default=list(NAMES), metavar="A,B,...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each job")
    parser.add_argument("--jobs", type=int, default=1, help="originals at a time")
    args = parser.parse_args()
    wanted = [(args.out, name, model, seed) for name in args.datasets for model in ARCHITECTURES for seed in range(args.seeds)]
    in_parallel(run, [each for each in wanted if not result_file(*each).exists()], args)
    results = [row for each in wanted for row in json.loads(result_file(*each).read_text())["runs"]]
    print(table(results))
    print("written to", write_json("finetune_defaults", results))


def run(out: Path, name: str, architecture: str, seed: int) -> dict[str, Any]:
    """Every way to fine-tune one original, and the control arm of each rate: the original fine-tuned without compression."""
    base, dataset = base_of(out, name, architecture, seed)
    profile, spectra = profile_model(base), collect_spectra(base, dataset)
    ranks = {
        layer.layer_name: 64 if layer.kind == "linear" else max(1, layer.out_features // 4)
        for layer in profile.compressible
        if layer.kind == "embedding" or layer.in_features == layer.out_features
    }
    plan = plan_ranks(profile, ranks=ranks)
    original = evaluate_model(base, dataset.split("test"))
    runs = []
    for rows in ROWS:
        for title, changes in VARIANTS.items():
            changes = dict(changes)
            order = changes.pop("order", "mlp_first")
            tuning = FINETUNE.replace(batch_size=4096 if name == "frappe" else 256, rows=rows, seed=seed + 1000, device="cpu")
            config = CompressConfig(plan=plan, order=order, finetune=tuning.replace(**changes))
            torch.manual_seed(seed)
            result = compress_and_finetune(base, dataset, config, spectra)
            truncated = compress_and_finetune(base, dataset, config.replace(finetune=None, order="joint"), spectra)
            before, after = (evaluate_model(model, dataset.split("test")) for model in (truncated.model, result.model))
            valid = evaluate_model(result.model, dataset.split("valid"))
            row = {
                "dataset": name, "model": architecture, "seed": seed, "rows": rows, "variant": title, "base_auc": original.auc,
                "base_log_loss": original.log_loss, "truncated_auc": before.auc, "truncated_log_loss": before.log_loss,
                "auc": after.auc, "log_loss": after.log_loss, "valid_log_loss": valid.log_loss,
                "truncated_valid_log_loss": result.truncated_log_loss, "kept_truncated": result.kept_truncated,
            }  # fmt: skip
            if title.startswith("rate"):
                control = evaluate_model(fit(base, dataset, config.finetune).model, dataset.split("test"))
                row |= {"control_auc": control.auc, "control_log_loss": control.log_loss}
            runs.append(row)
    found = {"dataset": name, "model": architecture, "seed": seed, "runs": runs}
    keep(result_file(out, name, architecture, seed), found)
    return found


def result_file(out: Path, name: str, architecture: str, seed: int) -> Path:
    """Path of the runs of one original."""
    return out / f"{name}-{architecture}-{seed}.finetune.json"


def table(results: list[dict[str, Any]]) -> str:
    """One row a way and its rows; a column a dataset."""
    names = [name for name in NAMES if any(row["dataset"] == name for row in results)]
    lines = []
    for rows in ROWS:
        for title in VARIANTS:
            runs = [row for row in results if (row["rows"], row["variant"]) == (rows, title)]
            cells = []
            for name in names:
                own = [row for row in runs if row["dataset"] == name]
                cells += [change(own, "auc"), change(own, "log_loss")]
            not_below = sum(row["valid_log_loss"] <= row["truncated_valid_log_loss"] + 1e-9 for row in runs)
            lines.append([rows, title, *cells, f"{not_below} of {len(runs)}"])
    heads = [f"{name}, {what}" for name in names for what in ("AUC", "log loss")]
    return markdown_table(["fine-tuned on", "setting", *heads, "not below"], lines)


def change(runs: list[dict[str, Any]], key: str) -> str:
    """From truncation, in thousandths: mean ± deviation."""
    gaps = [1000 * (run[key] - run[f"truncated_{key}"]) for run in runs]
    return f"{np.mean(gaps):+.2f} ± {np.std(gaps, ddof=1) if len(gaps) > 1 else 0:.2f}"


if __name__ == "__main__":
    main()
