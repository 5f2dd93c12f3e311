"""Latency of a plan's measured AUC, and of the planner: DeepFM at Criteo size.

    python benchmarks/preview.py [--threads 2]

Criteo size: 39 tables of 16 (13 small, 26 large), 1.06 M ids, MLP 400x3, random rows and weights, because time does not depend on
them. A preview is what the page's process does after a slider is released: truncated layers swapped in, one pass over the rows,
DeLong intervals, layers swapped out. Also: the process's round trip on the sample, pipes and JSON included, and the greatest
difference between a preview's AUC and that of the compressed model. Ends with status 1 when a median misses its target.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Table, Target, at_most, stored_result, write_json

from ctrlab.compression.surgery import compress_model
from ctrlab.data.dataset import Split
from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.decomposition.collect import collect_covariances, table_moments
from ctrlab.decomposition.covariance import decompose
from ctrlab.evaluation.delong import auc_difference, auc_interval, log_loss_difference
from ctrlab.evaluation.prediction import evaluate_model
from ctrlab.measuring.probe import Probe
from ctrlab.measuring.sensitivity_probe import measure_sensitivity
from ctrlab.models.base import build_model
from ctrlab.models.configs import DeepFMConfig
from ctrlab.plans.budgets import COUNTED_KINDS, Budget
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.planner import plan_for_budget, plan_for_loss, planned_front
from ctrlab.plans.rank_problem import PlanOptions
from ctrlab.services.lab import Lab
from ctrlab.services.previews import PreviewRequest, preview_process

PREVIEW_MS, PLANNER_MS, DIFFERENCE = 500.0, 100.0, 1e-6
IDS = (*[100] * 13, *np.geomspace(10, 250_000, 26).astype(int).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--redraw", action="store_true", help="measure nothing: draw the stored figures again")
    args = parser.parse_args()
    if args.redraw:
        old = stored_result("preview")
        report(old["results"], command="benchmarks/preview.py", measured_on=old["machine"])
        return
    torch.set_num_threads(args.threads)
    probe, split = criteo_sized()
    names = [layer.layer_name for layer in probe.profile.compressible]
    plans = [
        {name: max(1, probe.profile.by_name[name].out_features // share) for name in names} for share in (2, 4, 8)
    ] + [{"mlp.2": 64, "mlp.4": 64}]  # fmt: skip
    times = {"preview, 32,768 rows": [timed(lambda plan=plan: preview(probe, plan)) for plan in plans * args.repeats]}
    times |= planner_times(probe, split, args.repeats)
    times["round trip, sample"] = round_trips(args.repeats)
    worst = max(difference(probe, split, plan) for plan in plans)
    print(f"{probe.profile.cost.parameters:,} parameters")
    targets = report({"ms": times, "auc_difference": worst, "threads": args.threads})
    sys.exit(0 if all(target.met for target in targets) else "over target")


def report(found: dict[str, Any], **how: Any) -> list[Target]:
    """Print and write. how: keyword arguments of `write_json`."""
    times, worst = found["ms"], found["auc_difference"]
    rows = [[name, f"{statistics.median(own):.0f}", f"{max(own):.0f}"] for name, own in times.items()]
    note = f"{found['threads']} threads. AUC of a preview and of the really compressed model: within {worst:.1e}."
    table = Table("Measured previews and planning, DeepFM of Criteo's size", ["what", "median ms", "worst ms"], rows, note)
    targets = [
        at_most(name, statistics.median(own), PLANNER_MS if name.startswith("planner") else PREVIEW_MS, "{:.0f} ms")
        for name, own in times.items()
    ]
    targets.append(at_most("AUC of a preview against that of the compressed model", worst, DIFFERENCE, "{:.0e}"))
    print(table, *targets, sep="\n")
    print("written to", write_json("preview", found, tables=[table], targets=targets, **how))
    return targets


def timed(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


def criteo_sized() -> tuple[Probe, Split]:
    """DeepFM with random weights over random rows, and its spectra."""
    random = np.random.default_rng(0)
    schema = FeatureSchema(
        field_names=tuple(f"C{number}" for number in range(len(IDS))), field_dims=IDS, value_names=(), fingerprint="criteo"
    )
    torch.manual_seed(0)
    model = build_model(DeepFMConfig(embed_dim=16, mlp_dims=(400, 400, 400), embedding_init_std=0.1), schema).eval()
    ids = np.stack([np.minimum(random.zipf(1.2, 32_768), dim) - 1 for dim in IDS], axis=1).astype(np.int32)
    labels = (random.random(len(ids)) < 0.25).astype(np.uint8)
    split = Split("valid", ids, np.empty((len(ids), 0), np.float32), labels, np.empty((len(ids), 0), np.int32))
    return Probe(model, _spectra(model, split), split), split


def _spectra(model: Any, split: Split) -> dict[str, Any]:
    fields = Fields(split.ids[:8192], split.values[:8192], split.lists[:8192])
    moments = collect_covariances(model, [fields])
    embedding = model.embedding
    for number, name in enumerate(embedding.schema.table_names):
        table = embedding.categorical.table.weight.detach()[embedding.categorical.rows_of(number)]
        counts = np.bincount(split.ids[:, number], minlength=len(table))
        moments[f"embedding.{name}"] = table_moments(table, counts)
    return {
        name: decompose(name, "embedding" if name.startswith("embedding") else "linear", own, torch.zeros(1))
        for name, own in moments.items()
    }


def preview(probe: Probe, plan: dict[str, int]) -> None:
    """The work of the preview process for one request."""
    found = probe.measure(CompressionSpec.of(plan))
    auc_interval(probe.labels, found.logits)
    auc_difference(probe.labels, found.logits, probe.original.logits)
    log_loss_difference(probe.labels, found.logits, probe.original.logits)


def difference(probe: Probe, split: Split, plan: dict[str, int]) -> float:
    """Difference between the AUC of a preview and of the compressed model on the same rows."""
    built = compress_model(probe.model, CompressionSpec.of(plan), probe.spectra).model
    return abs(evaluate_model(built, split).auc - probe.measure(CompressionSpec.of(plan)).auc)


def planner_times(probe: Probe, split: Split, repeats: int) -> dict[str, list[float]]:
    """Milliseconds for every kind of budget, for a loss, and for the front."""
    fewer = Probe(probe.model, probe.spectra, split, max_rows=2048)
    sensitivity = measure_sensitivity(fewer)
    profile, whole = probe.profile, serving_cost(probe.profile, {})
    limits = {"parameters": whole.parameters, "bytes": whole.size_bytes, "table_bytes": whole.bytes_tables, "macs": whole.macs}
    found: dict[str, list[float]] = {}
    for kind in COUNTED_KINDS:
        budget = Budget(kind=kind, limit=limits[kind] / 3)
        found[f"planner, {kind} to a third"] = [
            timed(lambda budget=budget: plan_for_budget(profile, sensitivity, budget, PlanOptions(spectra=probe.spectra)))
            for _ in range(repeats)
        ]
    found["planner, AUC loss 0.0005"] = [timed(lambda: plan_for_loss(profile, sensitivity, 0.0005)) for _ in range(repeats)]
    found["front of plans"] = [
        timed(lambda: planned_front(profile, sensitivity, options=PlanOptions(spectra=probe.spectra))) for _ in range(repeats)
    ]
    return found


def round_trips(repeats: int) -> list[float]:
    """Milliseconds of requests about the sample's model, through the process."""
    with tempfile.TemporaryDirectory() as home, Lab(Path(home)) as lab:
        ids = lab.open_sample()
        process = preview_process(lab.workspace)

        def ask(rank: int) -> None:
            plan = RankPlan.of({"mlp.2": rank})
            process.ask(PreviewRequest(model_id=ids["model"], spectra_id=ids["spectra"], spec=CompressionSpec(plan=plan))).result(
                60
            )

        ask(1)
        found = [timed(lambda rank=rank: ask(rank)) for rank in range(2, 2 + repeats)]
        process.close()
    return found


if __name__ == "__main__":
    main()
