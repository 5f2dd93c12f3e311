"""Equal ranks on Frappe: AFM, loss-weighted AFM, recovery in closed form and both; then 10, 20 and 40 times fewer bytes.

Test AUC and log loss without fine-tuning.

    python benchmarks/recovery.py --out runs/bases --seeds 3
    python benchmarks/recovery.py --out runs/short --seeds 1 --epochs 3      # originals of a short training

Originals are those of `benchmarks/bases.py` with the same --out; with --epochs they are trained here. Statistics are of 65,536
training rows. "MLP 16" is rank 16 for every hidden layer, "tables 4" rank 4 for every table of width 10. The sizes are planned
and chosen on validation rows.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from bases import base_of, dataset_of, model_file, training_of, untrained
from common import Table, write_json

from ctrlab.compression.fold import serving_form
from ctrlab.compression.pipeline import RECOVERY_ROWS, recovered
from ctrlab.compression.quantize import quantize
from ctrlab.compression.surgery import compress_model
from ctrlab.decomposition.collect import collect_spectra
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.measuring.choose import candidate_specs, choose_spec
from ctrlab.measuring.probe import Probe
from ctrlab.models.checkpoint import save_model
from ctrlab.models.cost import measure_cost
from ctrlab.models.profiling import profile_model
from ctrlab.plans.budgets import Budget, BudgetError
from ctrlab.plans.configs import CompressConfig, CompressionSpec, PlanSettings
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.estimates import estimated_sensitivity
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

FACTORS = (10, 20, 40)
#: {arm: how its plan is made}.
PLANS = {
    "ranks alone": PlanSettings(method="weighted_afm"),
    "ranks, 8 bits": PlanSettings(method="weighted_afm", bits="int8"),
    "ranks and bits": PlanSettings(method="weighted_afm", bits="planned"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of data and originals")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(ROWS), metavar="A,B,...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None, help="train the originals here, for so many epochs")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=["ranks", "sizes"], metavar="ranks,sizes")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found: list[dict[str, Any]] = []
    for name in args.models:
        for seed in range(args.seeds):
            if args.epochs is not None:
                train_shortly(args.out, name, seed, args.epochs)
            found += measured(args.out, name, seed, args.parts)
    makers = {"ranks": table_of, "sizes": table_of_sizes}
    tables = [makers[part](found) for part in args.parts]
    for table in tables:
        print(table.title, *(" | ".join(row) for row in [table.headers, *table.rows]), sep="\n")
    print("written to", write_json("recovery", {"epochs": args.epochs, "rows": found}, tables=tables))


def train_shortly(out: Path, name: str, seed: int, epochs: int) -> None:
    """Train an original for so many epochs, unless there is one."""
    path = model_file(out, "frappe", name, seed)
    if not path.exists():
        dataset = dataset_of(out, "frappe", seed)
        settings = training_of("frappe", name, seed).replace(epochs=epochs, l2_embedding=0.0)
        save_model(fit(untrained("frappe", name, dataset, seed), dataset, settings).model, path)


def measured(out: Path, name: str, seed: int, parts: list[str]) -> list[dict[str, Any]]:
    """A row for the original, for every arm at every choice of ranks, and for every way to plan at every size."""
    model, dataset = base_of(out, "frappe", name, seed)
    test = dataset.split("test")
    base = evaluate_model(model, test)
    rows = [{"model": name, "seed": seed, "ranks": "", "arm": "original", "auc": base.auc, "log_loss": base.log_loss}]
    print(rows[-1], flush=True)
    spectra, profile = collect_spectra(model, dataset, max_rows=RECOVERY_ROWS, loss_gradients=True), profile_model(model)
    for ranks, patterns in ROWS[name].items() if "ranks" in parts else ():
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
    return rows + (sizes(model, dataset, spectra, name, seed) if "sizes" in parts else [])


def sizes(model: Any, dataset: Any, spectra: Any, name: str, seed: int) -> list[dict[str, Any]]:
    """A row for every factor and way to plan, as it is served, with and without recovery."""
    probe, rows = Probe(model, spectra, dataset.split("valid")), []
    whole = serving_cost(probe.profile, {}).size_bytes
    for factor in FACTORS:
        for arm, settings in PLANS.items():
            bare = CompressionSpec(method=settings.method)
            sensitivity = estimated_sensitivity(probe.profile, spectra, bare)
            assert sensitivity is not None
            budget = Budget(kind="bytes", limit=whole / factor)
            try:
                choice = choose_spec(probe, candidate_specs(probe.profile, sensitivity, budget, spectra, settings))
            except BudgetError:
                continue
            for recovery in ("off", "best"):
                config = CompressConfig(**{**vars(choice.spec), "recovery": recovery})
                small = compress_model(model, config, spectra, profile=probe.profile).model.eval()
                if recovery == "best":
                    small, _ = recovered(model, small, dataset, config, spectra, lambda: False)
                served = quantize(serving_form(small), config.precision, config.precisions_by_layer)
                metrics, size = evaluate_model(served, dataset.split("test")), measure_cost(served).size_bytes
                assert size <= budget.limit
                rows.append(
                    {"model": name, "seed": seed, "factor": factor, "arm": arm, "recovery": recovery, "chosen": choice.name,
                     "bytes": size, "auc": metrics.auc, "log_loss": metrics.log_loss}
                )  # fmt: skip
                print(rows[-1], flush=True)
    return rows


def table_of_sizes(found: list[dict[str, Any]]) -> Table:
    """AUC and log loss at every size, means over seeds; a dash where no plan is so small."""
    rows = []
    for name in ROWS:
        own = [row for row in found if row["model"] == name]
        if not own:
            continue
        original = _cell([row for row in own if row["arm"] == "original"])
        for factor in FACTORS:
            cells = []
            for arm in PLANS:
                for recovery in ("off", "best"):
                    wanted = {"factor": factor, "arm": arm, "recovery": recovery}
                    at = [row for row in own if all(row.get(key) == value for key, value in wanted.items())]
                    cells.append(_cell(at) if at else "-")
            rows.append([f"{name}: {factor}x", original, *cells])
    heads = [f"{arm}{', recovery' if recovery == 'best' else ''}" for arm in PLANS for recovery in ("off", "best")]
    title = "Frappe, test AUC / log loss at a tenth, a twentieth and a fortieth of the bytes, without fine-tuning"
    return Table(title=title, headers=["size", "original", *heads], rows=rows)


def table_of(found: list[dict[str, Any]]) -> Table:
    """AUC and log loss, means over seeds."""
    rows = []
    for name, choices in ROWS.items():
        own = [row for row in found if row["model"] == name]
        if not own:
            continue
        original = _cell([row for row in own if row["arm"] == "original"])
        for ranks in choices:
            cells = [_cell([row for row in own if row.get("ranks") == ranks and row["arm"] == arm]) for arm in ARMS]
            rows.append([f"{name}: {ranks}", original, *cells])
    title = "Frappe, test AUC / log loss at equal ranks, without fine-tuning"
    return Table(title=title, headers=["ranks", "original", *ARMS], rows=rows)


def _cell(rows: list[dict[str, Any]]) -> str:
    return " / ".join(f"{sum(row[part] for row in rows) / len(rows):.4f}" for part in ("auc", "log_loss"))


if __name__ == "__main__":
    main()
