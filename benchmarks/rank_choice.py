"""The planner against uniform variance and uniform rank: log loss and AUC at a third, a fifth and a tenth of the size.

    python benchmarks/bases.py --out runs/bases --seeds 3           # first: the originals
    python benchmarks/rank_choice.py --out runs/bases --seeds 3

Truncation by AFM, nothing fine-tuned. Size is that of the served form in bytes, first-order weights included. Sensitivity and the
joint measurement use validation rows only; the plan that measures best there is reported on the test rows too. Where no plan in
float32 is small enough, all three are served and measured in int8; the row says so.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from bases import ARCHITECTURES, NAMES, base_of
from common import Table, Target, stored_result, write_json
from frappe_zoo import in_parallel, keep

from ctrlab.compression.fold import serving_form
from ctrlab.compression.quantize import quantize
from ctrlab.compression.surgery import compress_model
from ctrlab.decomposition.collect import collect_spectra
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.measuring.choose import baseline_plans, candidate_specs
from ctrlab.measuring.probe import Probe
from ctrlab.measuring.sensitivity_probe import measure_sensitivity
from ctrlab.models.structure import Precision
from ctrlab.plans.budgets import Budget, BudgetError
from ctrlab.plans.configs import CompressionSpec, PlanSettings, RankPlan
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.planner import plan_for_budget
from ctrlab.plans.rank_problem import PlanOptions

FACTORS = (3, 5, 10)
BASELINES = ("uniform variance", "uniform rank")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the folder that bases.py left its models in")
    parser.add_argument("--datasets", type=lambda text: text.split(","), default=list(NAMES), metavar="A,B,...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each job")
    parser.add_argument("--jobs", type=int, default=1, help="originals at a time")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: draw the stored figures again")
    args = parser.parse_args()
    if args.redraw:
        old = stored_result("rank_choice")
        report(old["results"], command="benchmarks/rank_choice.py --out DIR", measured_on=old["machine"])
        return
    if args.out is None:
        parser.error("--out is needed: the folder that bases.py left its models in")
    wanted = [(args.out, name, model, seed) for name in args.datasets for model in ARCHITECTURES for seed in range(args.seeds)]
    in_parallel(run, [each for each in wanted if not result_file(*each).exists()], args)
    results = [row for each in wanted for row in json.loads(result_file(*each).read_text())["runs"]]
    report(results)


def report(results: list[dict[str, Any]], **how: Any) -> None:
    """Print and write. how: keyword arguments of `write_json`."""
    wins = [
        row for row in results if all(row["plans"][baseline]["valid_log_loss"] >= row["valid_log_loss"] for baseline in BASELINES)
    ]
    alone = [row for row in results if row["planned_alone_wins"]]
    whole = table(results, f"The planner's plan for the very budget, unchecked by measurement, is at least as good as both in "
                           f"{len(alone)} of {len(results)} runs.")  # fmt: skip
    what = "the choice at least as good as uniform variance and uniform rank (validation log loss)"
    targets = [Target(what, "every run", f"{len(wins)} of {len(results)} runs", len(wins) == len(results))]
    print(whole, *targets, sep="\n")
    print("written to", write_json("rank_choice", results, tables=[whole], targets=targets, **how))


def run(out: Path, name: str, architecture: str, seed: int) -> dict[str, Any]:
    """All sizes of one original."""
    base, dataset = base_of(out, name, architecture, seed)
    spectra = collect_spectra(base, dataset)
    probe = Probe(base, spectra, dataset.split("valid"), max_rows=len(dataset.split("valid")))
    started = time.perf_counter()
    sensitivity = measure_sensitivity(probe)
    seconds = time.perf_counter() - started
    profile, whole = probe.profile, serving_cost(probe.profile, {})
    original = evaluate_model(base, dataset.split("test"))
    runs = []
    for factor in FACTORS:
        limit = whole.size_bytes / factor
        budget = Budget(kind="bytes", limit=limit)
        precision: Precision = "float32"
        started = time.perf_counter()
        try:
            plan_for_budget(profile, sensitivity, budget, PlanOptions(spectra=spectra))
        except BudgetError:
            precision = "int8"
        planner_ms = 1000 * (time.perf_counter() - started)
        specs = candidate_specs(profile, sensitivity, budget, spectra, PlanSettings(bits=precision))
        plans = {title: spec.plan for title, spec in specs.items()}
        plans |= baseline_plans(profile, budget, spectra, CompressionSpec(precision=precision))
        if precision == "float32":
            found = {title: probe.measure(CompressionSpec(plan=plan)) for title, plan in plans.items()}
            valid = {title: {"log_loss": one.log_loss, "auc": one.auc} for title, one in found.items()}
        else:
            valid = {title: _measured(base, plan, spectra, dataset, "valid", precision) for title, plan in plans.items()}
        chosen = min(valid, key=lambda title: valid[title]["log_loss"])
        measured = {
            title: {"valid_log_loss": valid[title]["log_loss"], "valid_auc": valid[title]["auc"],
                    "bytes": serving_cost(profile, plan.as_dict(), CompressionSpec(precision=precision)).size_bytes}
            for title, plan in plans.items()
        }  # fmt: skip
        tests = {title: _measured(base, plans[title], spectra, dataset, "test", precision) for title in {chosen, *BASELINES}}
        best = min(measured[baseline]["valid_log_loss"] for baseline in BASELINES)
        runs.append(
            {"dataset": name, "model": architecture, "seed": seed, "factor": factor, "precision": precision,
             "chosen": chosen, "valid_log_loss": valid[chosen]["log_loss"], "plans": measured, "test": tests,
             "chosen_test": tests[chosen], "original": {"log_loss": original.log_loss, "auc": original.auc},
             "original_valid_log_loss": probe.original.log_loss, "planner_ms": planner_ms, "sensitivity_seconds": seconds,
             "planned_alone_wins": measured["planned"]["valid_log_loss"] <= best, "ranks": plans[chosen].as_dict()}
        )  # fmt: skip
    found = {"dataset": name, "model": architecture, "seed": seed, "runs": runs}
    keep(result_file(out, name, architecture, seed), found)
    return found


def _measured(base: Any, plan: RankPlan, spectra: Any, dataset: Any, split: str, precision: Precision) -> dict[str, float]:
    """Of the plan's model as it is served."""
    served = quantize(serving_form(compress_model(base, CompressionSpec(plan=plan), spectra).model), precision)
    metrics = evaluate_model(served, dataset.split(split))
    return {"log_loss": metrics.log_loss, "auc": metrics.auc}


def result_file(out: Path, name: str, architecture: str, seed: int) -> Path:
    """Path of the runs of one original."""
    return out / f"{name}-{architecture}-{seed}.ranks.json"


def table(results: list[dict[str, Any]], note: str = "") -> Table:
    """One row a dataset, model and size: means over seeds."""
    lines = []
    for name in NAMES:
        for architecture in ARCHITECTURES:
            for factor in FACTORS:
                runs = [row for row in results if (row["dataset"], row["model"], row["factor"]) == (name, architecture, factor)]
                if not runs:
                    continue
                size = f"{factor}x" if runs[0]["precision"] == "float32" else f"{factor}x (in {runs[0]['precision']})"
                valid = [
                    [row["original_valid_log_loss"] for row in runs], [row["valid_log_loss"] for row in runs],
                    *([row["plans"][baseline]["valid_log_loss"] for row in runs] for baseline in BASELINES),
                ]  # fmt: skip
                test = [
                    [row["original"]["auc"] for row in runs], [row["chosen_test"]["auc"] for row in runs],
                    *([row["test"][baseline]["auc"] for row in runs] for baseline in BASELINES),
                ]  # fmt: skip
                wins = sum(all(row["plans"][r]["valid_log_loss"] >= row["valid_log_loss"] for r in BASELINES) for row in runs)
                cells = [spread(values) for values in (*valid, *test)]
                lines.append([name, architecture, size, *cells, f"{wins} of {len(runs)}"])
    arms = ("original", "planner", *BASELINES)
    heads = [*(f"valid log loss, {arm}" for arm in arms), *(f"test AUC, {arm}" for arm in arms)]
    headers = ["data", "model", "smaller", *heads, "no worse than both"]
    return Table("Truncated by AFM to a third, a fifth and a tenth, nothing fine-tuned", headers, lines, note)


def spread(values: list[float]) -> str:
    """Mean ± standard deviation, four digits."""
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{deviation}"


if __name__ == "__main__":
    main()
