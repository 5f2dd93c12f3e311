"""AUC and log loss of millions of predictions, against one numpy sort of them and against scikit-learn.

python benchmarks/metrics.py [--rows 10] [--quick]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import Table, Target, at_most, stored_result, write_json

from ctrlab.data.encoding.threads import num_threads
from ctrlab.evaluation.metrics import auc, log_loss, metrics_of, sigmoid

SORTS = 1.2


def best_seconds(work: Callable[[], Any], repeats: int) -> float:
    """The fastest of some runs, after one that compiles."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def measure(rows: int, dtype: type, repeats: int) -> dict[str, Any]:
    from sklearn.metrics import log_loss as oracle_loss
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    logits = (random.standard_normal(rows) * 1.5 - 1.5).astype(dtype)
    labels = (random.random(rows) < sigmoid(logits)).astype(np.uint8)
    probabilities = sigmoid(logits)
    sort = best_seconds(lambda: np.sort(logits), repeats)
    work = {
        "AUC": lambda: auc(labels, logits),
        "log loss": lambda: log_loss(labels, logits),
        "AUC and log loss": lambda: (auc(labels, logits), log_loss(labels, logits)),
        "AUC, log loss, calibration": lambda: metrics_of(labels, logits),
    }
    seconds = {"one np.sort": sort} | {name: best_seconds(run, repeats) for name, run in work.items()}
    start = time.perf_counter()
    expected = roc_auc_score(labels, logits), oracle_loss(labels, probabilities)
    seconds["scikit-learn: AUC and log loss"] = time.perf_counter() - start
    found = metrics_of(labels, logits)
    return {
        "dtype": np.dtype(dtype).name,
        "rows": rows,
        "threads": num_threads(),
        "seconds": seconds,
        "sorts": {name: value / sort for name, value in seconds.items()},
        "difference": {"auc": abs(found.auc - expected[0]), "log_loss": abs(found.log_loss - expected[1])},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=10, help="millions of predictions")
    parser.add_argument("--quick", action="store_true", help="a smoke run of 0.3 million rows")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: draw the stored figures again")
    args = parser.parse_args()
    if args.redraw:
        old = stored_result("metrics")
        report(old["results"], command="benchmarks/metrics.py", measured_on=old["machine"])
        return
    rows = 300_000 if args.quick else int(args.rows * 1e6)
    results = [measure(rows, dtype, 1 if args.quick else 3) for dtype in (np.float32, np.float64)]
    report(results, quick=args.quick)


def report(results: list[dict[str, Any]], **how: Any) -> None:
    """Print and write. how: keyword arguments of `write_json`."""
    tables, targets = [table_of(result) for result in results], [target_of(result) for result in results]
    print(*tables, *targets, sep="\n")
    print(write_json("metrics", results, tables=tables, targets=targets, **how))


def table_of(result: dict[str, Any]) -> Table:
    lines = [(name, f"{value:.3f}", f"{result['sorts'][name]:.2f}") for name, value in result["seconds"].items()]
    off = result["difference"]
    return Table(
        f"{result['rows']:,} predictions, {result['dtype']}, {result['threads']} threads", ["what", "s", "sorts"], lines,
        f"Off scikit-learn's AUC by {off['auc']:.1e}, off its log loss by {off['log_loss']:.1e}.",
    )  # fmt: skip


def target_of(result: dict[str, Any]) -> Target:
    what = f"AUC and log loss of {result['rows'] / 1e6:.2g} M predictions, {result['dtype']}, against one sort of them"
    return at_most(what, result["sorts"]["AUC and log loss"], SORTS)


if __name__ == "__main__":
    main()
