"""Equal ranks on Frappe: AFM, loss-weighted AFM, recovery in closed form and both; test AUC and log loss without fine-tuning.

    python benchmarks/recovery.py --out runs/bases --seeds 3
    python benchmarks/recovery.py --out runs/short --seeds 1 --epochs 3      # originals of a short training

Originals are those of `benchmarks/bases.py` with the same --out; with --epochs they are trained here. Statistics
are of 65,536 training rows. "MLP 16" is rank 16 for every hidden layer, "tables 4" rank 4 for every table of width 10.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from bases import base_of, dataset_of, model_file, training_of, untrained
from common import Table, write_json

from ctrlab.compression.pipeline import RECOVERY_ROWS, recovered
from ctrlab.compression.surgery import compress_model
from ctrlab.decomposition.collect import collect_spectra
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.models.checkpoint import save_model
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressConfig
from ctrlab.plans.ranks import plan_ranks
from ctrlab.training.loop import fit

Ranks = dict[str, int]
ROWS: dict[str, dict[str, Ranks]] = {
    "deepfm": {
        "MLP 16": {"mlp.*": 16},
        "MLP 8": {"mlp.*": 8},
        "MLP 4": {"mlp.*": 4},
        "tables 4": {"embedding.*": 4},
        "tables 3": {"embedding.*": 3},
        "MLP 16, tables 4": {"mlp.*": 16, "embedding.*": 4},
    },
    "dcn": {
        "MLP 8": {"mlp.*": 8},
        "tables 4": {"embedding.*": 4},
        "MLP 16, tables 4": {"mlp.*": 16, "embedding.*": 4},
    },
}
#: {arm: (method, recovery)}.
ARMS = {
    "AFM": ("afm", "off"),
    "weighted": ("weighted_afm", "off"),
    "recovery": ("afm", "on"),
    "both": ("weighted_afm", "on"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of data and originals")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(ROWS), metavar="A,B,...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None, help="train the originals here, for so many epochs")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found: list[dict[str, Any]] = []
    for name in args.models:
        for seed in range(args.seeds):
            if args.epochs is not None:
                train_shortly(args.out, name, seed, args.epochs)
            found += measured(args.out, name, seed)
    table = table_of(found)
    print(table.title, *(" | ".join(row) for row in [table.headers, *table.rows]), sep="\n")
    print("written to", write_json("recovery", {"epochs": args.epochs, "rows": found}, tables=[table]))


def train_shortly(out: Path, name: str, seed: int, epochs: int) -> None:
    """Train an original for so many epochs, unless there is one."""
    path = model_file(out, "frappe", name, seed)
    if not path.exists():
        dataset = dataset_of(out, "frappe", seed)
        settings = training_of("frappe", name, seed).replace(epochs=epochs, l2_embedding=0.0)
        save_model(fit(untrained("frappe", name, dataset, seed), dataset, settings).model, path)


def measured(out: Path, name: str, seed: int) -> list[dict[str, Any]]:
    """A row for the original and for every arm at every choice of ranks."""
    model, dataset = base_of(out, "frappe", name, seed)
    test = dataset.split("test")
    base = evaluate_model(model, test)
    rows = [{"model": name, "seed": seed, "ranks": "", "arm": "original", "auc": base.auc, "log_loss": base.log_loss}]
    print(rows[-1], flush=True)
    spectra, profile = collect_spectra(model, dataset, max_rows=RECOVERY_ROWS, loss_gradients=True), profile_model(model)
    for ranks, patterns in ROWS[name].items():
        plan = plan_ranks(profile, ranks=patterns)
        for arm, (method, recovery) in ARMS.items():
            config = CompressConfig(plan=plan, method=method, recovery=recovery)  # type: ignore[arg-type]
            small = compress_model(model, config, spectra, profile=profile).model.eval()
            if recovery == "on":
                small, _ = recovered(model, small, dataset, config, spectra, lambda: False)
            metrics = evaluate_model(small, test)
            rows.append(
                {"model": name, "seed": seed, "ranks": ranks, "arm": arm, "auc": metrics.auc, "log_loss": metrics.log_loss}
            )
            print(rows[-1], flush=True)
    return rows


def table_of(found: list[dict[str, Any]]) -> Table:
    """AUC and log loss, means over seeds."""
    rows = []
    for name, choices in ROWS.items():
        own = [row for row in found if row["model"] == name]
        if not own:
            continue
        original = _cell([row for row in own if row["arm"] == "original"])
        for ranks in choices:
            cells = [_cell([row for row in own if row["ranks"] == ranks and row["arm"] == arm]) for arm in ARMS]
            rows.append([f"{name}: {ranks}", original, *cells])
    title = "Frappe, test AUC / log loss at equal ranks, without fine-tuning"
    return Table(title=title, headers=["ranks", "original", *ARMS], rows=rows)


def _cell(rows: list[dict[str, Any]]) -> str:
    return " / ".join(f"{sum(row[part] for row in rows) / len(rows):.4f}" for part in ("auc", "log_loss"))


if __name__ == "__main__":
    main()
