"""How well milliseconds of plans are predicted: plans drawn at random, none of them among those timed, DeepFM at Criteo size.

    python benchmarks/speed_model.py [--batch 4096] [--plans 12] [--threads 2]

The speed model times uniform plans (measuring/speed_probe.py); then random plans are predicted, built, folded and timed. In each,
every layer is left dense or gets a rank of its own. Finally a plan for a budget of half the original's milliseconds.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from common import Table, at_most, stored_result, write_json
from preview import criteo_sized

from ctrlab.measuring.latency_search import plan_that_runs
from ctrlab.measuring.probe import Probe
from ctrlab.measuring.sensitivity_probe import measure_sensitivity
from ctrlab.measuring.speed_probe import measure_plan_ms, measure_speed
from ctrlab.plans.budgets import Budget
from ctrlab.plans.planner import plan_for_budget
from ctrlab.plans.rank_problem import PlanOptions

TARGET = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--plans", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each timing")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: draw the stored figures again")
    args = parser.parse_args()
    if args.redraw:
        old = stored_result("speed_model")
        report(old["results"], command="benchmarks/speed_model.py", measured_on=old["machine"])
        return
    if args.quick:
        args.plans, args.seconds = 3, 0.05
    torch.set_num_threads(args.threads)
    probe, split = criteo_sized()
    started = time.perf_counter()
    speed = measure_speed(probe.model, probe.spectra, split, args.batch, seconds=args.seconds)
    seconds = time.perf_counter() - started
    random = np.random.default_rng(0)
    rows = []
    for _ in range(args.plans):
        ranks = random_plan(probe, random)
        predicted = speed.predict_ms(probe.profile, ranks)
        measured = measure_plan_ms(probe.model, probe.spectra, split, ranks, args.batch, seconds=2 * args.seconds)
        form = speed.form_of(probe.profile, ranks)
        rows.append({"form": form, "predicted_ms": predicted, "measured_ms": measured, "error": predicted / measured - 1})
    half = half_the_time(probe, split, speed, args.seconds)
    found = {"plans": rows, "half": half, "original_ms": speed.original_ms, "batch": args.batch, "timing_seconds": seconds}
    report(found, quick=args.quick)


def report(found: dict[str, Any], **how: Any) -> None:
    """Print and write. how: keyword arguments of `write_json`."""
    plans = found["plans"]
    errors = [abs(row["error"]) for row in plans]
    rows = [[row["form"], f"{row['predicted_ms']:.2f}", f"{row['measured_ms']:.2f}", f"{row['error']:+.1%}"] for row in plans]
    within = sum(error <= TARGET for error in errors)
    note = (f"Batch {found['batch']}. Median error {statistics.median(errors):.1%}; within {TARGET:.0%}: {within} of "
            f"{len(errors)}; fitting the model of speed took {found['timing_seconds']:.0f} s.")  # fmt: skip
    half = [[f"{one['predicted_ms']:.2f}", f"{one['measured_ms']:.2f}"] for one in found["half"]]
    tables = [
        Table("Random plans of DeepFM of Criteo's size", ["form", "predicted ms", "measured ms", "error"], rows, note),
        Table(f"Budget: half of the original's {found['original_ms']:.2f} ms", ["predicted ms", "measured ms"], half,
              "Tries in their order; the last is what is returned."),
    ]  # fmt: skip
    targets = [at_most("worst error of predicted milliseconds over random plans", max(errors), TARGET, "{:.0%}")]
    print(*tables, *targets, sep="\n")
    print("written to", write_json("speed_model", found, tables=tables, targets=targets, **how))


def random_plan(probe: Probe, random: np.random.Generator) -> dict[str, int]:
    """A tenth of the layers dense, the others at ranks around a share drawn for the plan."""
    share = random.uniform(0, 1)
    ranks = {}
    for layer in probe.profile.compressible:
        if random.random() < 0.9:
            last = max(1, int(np.ceil(layer.break_even)) - 1)
            ranks[layer.layer_name] = max(1, round(last * random.beta(1 + 3 * share, 4 - 3 * share)))
    return ranks


def half_the_time(probe: Probe, split, speed, seconds: float) -> list[dict[str, float]]:
    """Attempts of the planner for half the original's milliseconds, predicted and measured."""
    sensitivity = measure_sensitivity(Probe(probe.model, probe.spectra, split, max_rows=2048))
    tried = plan_that_runs(
        Budget(kind="latency_ms", limit=speed.original_ms / 2, batch_size=speed.batch_size),
        lambda budget: plan_for_budget(probe.profile, sensitivity, budget, PlanOptions(spectra=probe.spectra, speed=speed)),
        lambda ranks: measure_plan_ms(probe.model, probe.spectra, split, ranks, speed.batch_size, seconds=2 * seconds),
    )
    return [{"predicted_ms": one.planned.latency_ms or 0.0, "measured_ms": one.measured_ms} for one in tried]


if __name__ == "__main__":
    main()
