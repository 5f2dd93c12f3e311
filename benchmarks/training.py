"""Training throughput against FuxiCTR and DeepCTR-Torch, in one run: rows a second, the GEMM limit, memory, AUC.

    make interop                                                        # once: the peers' environment
    python benchmarks/training.py [--models deepfm ...] [--rounds 3] [--parts speed memory auc] [--quick]

39 fields x 16, MLP 400x3, 1.06 M ids, 500k Criteo-shaped rows (`criteo_shaped.py`), batch 4096; the settings of every model are
in `zoo.py`. Each contender is a process of its own, all with equally many threads; rounds are interleaved, medians compared.
ctrlab runs its own `fit` from rows on the disk; the peers get batches that are ready in memory, because their loaders collect
row by row (with those they are slower still: part `memory` has a whole epoch of each as its users run it).
All have Adam over all rows, which is all that the peers offer; ctrlab applies a row's missed updates when the row is next read.

A run replaces what it measured in benchmarks/results/training.json and leaves the rest, so that models can be run one by one;
`--parts` without values only draws the tables again.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import zoo
from common import PROJECT, Table, Target, at_least, at_most, result_path, write_json
from contest import WORK, Entry, Running, running
from criteo_shaped import criteo_dims, stored
from real_rows import criteo_splits

NUM_ROWS, VALID_ROWS, BATCH = 500_000, 50_000, 4096
TARGETS = {"deepfm": 3.0, "fibinet": 5.0}
OTHER_TARGET, BF16_TARGET = 2.3, 5.0
SHARES = {"float32": 0.75, "bfloat16": 0.55}
MEMORY_GB, AUC_DIFFERENCE = 1.0, 0.002
OWN, OWN_BF16, PEERS = "ctrlab", "ctrlab, bf16", ("FuxiCTR", "DeepCTR-Torch")
#: Measured for AUC only.
OWN_LAZY = "ctrlab, lazy Adam"
OWN_ALL = (OWN, OWN_BF16, OWN_LAZY)
#: Models whose epochs take minutes: measured only where a target needs it.
SLOW = ("fibinet", "afn_plus")
#: Seconds of one round of one contender, and its fewest steps.
ROUND_SECONDS, FEWEST_STEPS = 3.0, 2

Results = dict[str, Any]


def main() -> None:
    args = arguments()
    found: Results = {} if args.fresh or not (path := result_path("training", args.quick)).exists() else read(path)
    rows = stored(WORK, 20_000 if args.quick else NUM_ROWS, criteo_dims(50_000 if args.quick else 1_060_000))
    if "speed" in args.parts:
        for model in args.models:
            found.setdefault("speed", {})[model] = speed(model, rows, args)
            print(speed_table({model: found["speed"][model]}), flush=True)
            write(found, args)
    if "memory" in args.parts:
        found["memory"] = memory(rows, args)
    if "auc" in args.parts:
        for model in args.models:
            found.setdefault("auc", {})[model] = accuracy(model, found.get("speed", {}).get(model), args)
            print(auc_table({model: found["auc"][model]}), flush=True)
            write(found, args)
    print(*tables_of(found), *targets_of(found), write(found, args), sep="\n")


def write(found: Results, args: argparse.Namespace) -> Path:
    """Called after every model, so that an interrupted run keeps the finished ones."""
    found["threads"] = args.threads
    tables = [table for table in tables_of(found) if table.rows]
    command = "benchmarks/training.py --parts speed memory auc"
    return write_json("training", found, tables=tables, targets=targets_of(found), quick=args.quick, command=command)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(zoo.TITLES), default=list(zoo.TITLES))
    parser.add_argument("--parts", nargs="*", choices=("speed", "memory", "auc"), default=["speed", "memory"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--interop-python", type=Path, default=PROJECT / ".venv-interop" / "bin" / "python")
    parser.add_argument("--without-peers", action="store_true", help="for work on the engine; no ratios")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs measured")
    parser.add_argument("--quick", action="store_true", help="a smoke run of a few steps; writes training-quick.json")
    args = parser.parse_args()
    if not args.interop_python.exists() and not args.without_peers:
        raise SystemExit(f"{args.interop_python} is not there; run `make interop`, or give --interop-python or --without-peers")
    return args


def read(path: Path) -> Results:
    results: Results = json.loads(path.read_text())["results"]
    return results


def entries(model: str, args: argparse.Namespace) -> list[Entry]:
    """Contenders of a model: ctrlab in both precisions, and the peers that have the model."""
    own = [Entry(OWN, "own", model=model)]
    if has_bf16():
        own.append(Entry(OWN_BF16, "own", "bfloat16", model))
    if args.without_peers:
        return own
    peers = [Entry("FuxiCTR", "peer_fuxictr", model=model)]
    if model != "gdcn":  # DeepCTR-Torch has none
        peers.append(Entry("DeepCTR-Torch", "peer_deepctr", model=model))
    return [*own, *peers]


def has_bf16() -> bool:
    from ctrlab.training.configs import FitConfig

    return "compute_dtype" in FitConfig.__dataclass_fields__


def speed(model: str, rows: Path, args: argparse.Namespace) -> Results:
    """{"rows_per_second": {contender: rounds}, "facts": {contender: dense part}, "gemm": rounds of the limit, of DeepFM only}."""
    with ExitStack() as stack:
        contenders = [stack.enter_context(running(e, rows, args.threads, args.interop_python)) for e in entries(model, args)]
        facts = {contender.entry.label: contender.tell("facts") for contender in contenders}
        counts = {contender.entry.label: steps_of(contender, args.quick) for contender in contenders}
        limit = (
            stack.enter_context(running(Entry("GEMM", "gemm"), None, args.threads, args.interop_python))
            if model == "deepfm"
            else None
        )
        found: dict[str, list[float]] = {label: [] for label in facts}
        gemm = []
        for _ in range(1 if args.quick else args.rounds):
            for contender in contenders:
                answer = contender.tell("steps", count=counts[contender.entry.label])
                found[contender.entry.label].append(answer["rows_per_second"])
            if limit is not None:
                gemm.append(limit.tell("gemm"))
    return {"rows_per_second": found, "steps": counts, "facts": facts, "gemm": gemm}


def steps_of(contender: Running, quick: bool) -> int:
    """Number of steps in a round of some seconds, from a first step, which also warms up."""
    rate = contender.tell("steps", count=1)["rows_per_second"]
    fitting = int(ROUND_SECONDS * rate / BATCH)
    return FEWEST_STEPS if quick else min(max(fitting, FEWEST_STEPS), NUM_ROWS // BATCH - 1)


def memory(rows: Path, args: argparse.Namespace) -> Results:
    """A whole epoch of DeepFM as users train it: {contender: {"rows_per_second", "peak_gb", "before_gb"}}."""
    found = {}
    for entry in entries("deepfm", args):
        with running(entry, rows, args.threads, args.interop_python) as contender:
            found[entry.label] = contender.tell("epoch")
        if entry.label == OWN:
            with running(entry, rows, args.threads, args.interop_python) as contender:
                found[f"{OWN}, with {VALID_ROWS // 1000}k validation rows"] = contender.tell("epoch", valid_rows=VALID_ROWS)
    return found


def accuracy(model: str, measured: Results | None, args: argparse.Namespace) -> Results:
    """{contender: [AUC of each seed]} after one epoch of the real Criteo rows, of ctrlab and of the faster peer.

    All use ctrlab's row order. ctrlab also with row-wise lazy Adam, a different optimizer.
    """
    train, test = criteo_splits(WORK)
    chosen = [entry for entry in entries(model, args) if entry.label not in PEERS or entry.label == faster_peer(measured, model)]
    if model not in SLOW:
        chosen.append(Entry(OWN_LAZY, "own", model=model, settings=(("optimizer", "lazy_adam"),)))
    found: dict[str, list[float]] = {entry.label: [] for entry in chosen}
    for seed in args.seeds:
        for entry in chosen:
            with running(entry, train, args.threads, args.interop_python) as contender:
                answer = contender.tell("auc", test=str(test), seed=seed, batch_size=1024, order=str(WORK / f"order-{seed}.npy"))
                found[entry.label].append(answer["auc"])
    return found


def faster_peer(measured: Results | None, model: str) -> str:
    """Name of the peer that trained faster; FuxiCTR where that was not measured."""
    if measured is None or not peer_rates(measured):
        return PEERS[0]
    rates = peer_rates(measured)
    return max(rates, key=rates.__getitem__)


def peer_rates(measured: Results) -> dict[str, float]:
    return {label: statistics.median(rounds) for label, rounds in measured["rows_per_second"].items() if label in PEERS}


def ratio(measured: Results, label: str) -> float | None:
    """Rate of a contender over the faster peer's."""
    rates = peer_rates(measured)
    own = measured["rows_per_second"].get(label)
    return statistics.median(own) / max(rates.values()) if own and rates else None


def tables_of(found: Results) -> list[Table]:
    speeds = found.get("speed", {})
    own = [speed_table(speeds), limit_table(found), bound_table(found), work_table(speeds), memory_table(found)]
    return [*own, auc_table(found.get("auc", {}))]


def speed_table(speeds: Results) -> Table:
    """Thousand rows a second, medians, and ratios to the faster peer."""
    labels = (OWN, OWN_BF16, *PEERS)
    rows = []
    for model, measured in ordered(speeds):
        cells = [thousands(measured["rows_per_second"].get(label)) for label in labels]
        rows.append([zoo.TITLES[model], *cells, times(ratio(measured, OWN)), times(ratio(measured, OWN_BF16))])
    return Table(
        "Training, thousand rows a second", ["model", *labels, "fp32 : faster peer", "bf16 : faster peer"], rows,
        "Medians over interleaved rounds (least to greatest in brackets).",
    )  # fmt: skip


def work_table(speeds: Results) -> Table:
    rows = [
        [zoo.TITLES[model], label, f"{fact['dense_parameters']:,}", f"{fact['macs']:,}"]
        for model, measured in ordered(speeds)
        for label, fact in measured["facts"].items()
        if label != OWN_BF16
    ]
    return Table(
        "The dense part of every contender", ["model", "framework", "dense parameters", "multiplications a row"], rows,
        "Of ctrlab elementwise products are counted too, of the peers matrix products alone, as torch counts them; so the peers' "
        "figure leaves out DCN's vectors and the like.",
    )  # fmt: skip


def limit_table(found: Results) -> Table:
    rows = []
    for dtype, value in limits(found).items():
        alone = [f"{value[library]:.0f}" if value[library] else "-" for library in ("mkl_gflops", "onednn_gflops")]
        rates = [f"{value['rows'] / 1e3:.1f} k", f"{value['own'] / 1e3:.1f} k", f"{value['share']:.0%}"]
        rows.append([dtype, f"{value['gflops']:.0f}", *alone, *rates])
    headers = ["precision", "GFLOP/s, the faster", "MKL", "oneDNN", "rows/s of the products alone", "ctrlab's DeepFM", "share"]
    return Table("DeepFM against the limit of its MLP's matrix products", headers, rows)


def bound_table(found: Results) -> Table:
    """Roofline of each model: 6 operations a multiplication at the measured GEMM rate."""
    rows = []
    for model, measured in ordered(found.get("speed", {})):
        cells = [zoo.TITLES[model]]
        for value in limits(found).values():
            bound = 1e9 * value["gflops"] / (6 * measured["facts"][OWN]["macs"])
            fastest = max(peer_rates(measured).values(), default=float("nan"))
            own = statistics.median(measured["rows_per_second"].get(value["label"]) or [float("nan")])
            cells += [f"{bound / 1e3:.3g} k", f"{bound / fastest:.2f}x", f"{own / bound:.0%}"]
        rows.append(cells)
    names = [f"{dtype}{what}" for dtype in limits(found) for what in ("", " : faster peer", ", reached by ctrlab")]
    return Table(
        "Roofline: GEMM-bound upper limit, rows a second", ["model", *names], rows,
        "The same rate of operations as DeepFM's MLP has, for all multiplications of a row, forward and backward. In float32 "
        "ctrlab does fewer in a layer that reads looked-up vectors: those of each distinct vector once.",
    )  # fmt: skip


def limits(found: Results) -> dict[str, dict[str, Any]]:
    """{dtype: limit, and ctrlab's DeepFM against it}."""
    measured = found.get("speed", {}).get("deepfm")
    if not measured or not measured["gemm"]:
        return {}
    values = {}
    for dtype, label in (("float32", OWN), ("bfloat16", OWN_BF16)):
        if rounds := measured["rows_per_second"].get(label):
            rows, gflops = (
                statistics.median(turn[dtype][key] for turn in measured["gemm"]) for key in ("rows_per_second", "gflops")
            )
            own = statistics.median(rounds)
            values[dtype] = {"label": label, "rows": rows, "gflops": gflops, "own": own, "share": own / rows}
            values[dtype] |= {library: measured["gemm"][-1][dtype].get(library) for library in ("mkl_gflops", "onednn_gflops")}
    return values


def memory_table(found: Results) -> Table:
    rows = [
        [label, f"{value['peak_gb']:.2f}", f"{value['before_gb']:.2f}", thousands([value["rows_per_second"]])]
        for label, value in found.get("memory", {}).items()
    ]
    return Table(
        "One epoch of DeepFM over 500k rows as users run it: own `fit`, own loader",
        ["contender", "peak, GB", "before the first row, GB", "thousand rows/s, start and end included"], rows,
    )  # fmt: skip


def auc_table(aucs: Results) -> Table:
    """Means over seeds."""
    rows = []
    for model, measured in ordered(aucs):
        peer = next((label for label in measured if label in PEERS), None)
        cells = [mean(measured.get(label)) for label in OWN_ALL]
        differences = [signed(measured.get(label), measured.get(peer or "")) for label in OWN_ALL]
        rows.append([zoo.TITLES[model], *cells, f"{mean(measured.get(peer or ''))} ({peer})", *differences])
    headers = ["model", *OWN_ALL, "faster peer", *(f"{label} - peer" for label in OWN_ALL)]
    return Table(
        "AUC after one epoch of the real Criteo rows", headers, rows,
        "Batch 1024, Adam 1e-3; means over seeds. "
        "Test rows: a tenth of 137k; the standard error of an AUC on them is 0.004.",
    )  # fmt: skip


def targets_of(found: Results) -> list[Target]:
    targets = []
    speeds = found.get("speed", {})
    for model in zoo.PAPER:
        what, bound = f"training {zoo.TITLES[model]}, fp32, against the faster peer", TARGETS.get(model, OTHER_TARGET)
        value = ratio(speeds[model], OWN) if model in speeds else None
        targets.append(at_least(what, value, bound) if value else missing(what, f"at least {bound:.2f}x"))
    value = ratio(speeds["deepfm"], OWN_BF16) if "deepfm" in speeds else None
    what = "training DeepFM, bf16, against the faster peer"
    targets.append(at_least(what, value, BF16_TARGET) if value else missing(what, f"at least {BF16_TARGET:.2f}x"))
    shares = limits(found)
    for dtype, bound in SHARES.items():
        what = f"training DeepFM, {dtype}, against the GEMM limit of the same run"
        value = shares[dtype]["share"] if dtype in shares else None
        targets.append(at_least(what, value, bound, "{:.0%}") if value else missing(what, f"at least {bound:.0%}"))
    peaks = [value["peak_gb"] for label, value in found.get("memory", {}).items() if label.startswith(f"{OWN}, with")]
    what = "peak memory while training DeepFM on the 500k rows, validation rows included"
    targets.append(at_most(what, peaks[0], MEMORY_GB, "{:.2f} GB") if peaks else missing(what, f"at most {MEMORY_GB} GB"))
    return [*targets, *auc_targets(found.get("auc", {}))]


def auc_targets(aucs: Results) -> list[Target]:
    """One-sided: a higher AUC than the peer's meets the target."""
    targets = []
    for label, name in ((OWN, "fp32"), (OWN_BF16, "bf16")):
        what, target = f"AUC of the paper's seven after one epoch of Criteo, {name}, against the faster peer", "within 0.002"
        gaps = {}
        for model in zoo.PAPER:
            measured = aucs.get(model, {})
            peer = next((own for own in measured if own in PEERS), None)
            if measured.get(label) and peer:
                gaps[model] = statistics.mean(measured[label]) - statistics.mean(measured[peer])
        if not gaps:
            targets.append(missing(what, target))
            continue
        worst = min(gaps, key=gaps.__getitem__)
        whole = len(gaps) == len(zoo.PAPER)
        text = f"{gaps[worst]:+.4f} at worst ({zoo.TITLES[worst]}), {len(gaps)} of {len(zoo.PAPER)} models"
        targets.append(Target(what, target, text, gaps[worst] >= -AUC_DIFFERENCE if whole else None))
    return targets


def missing(what: str, target: str) -> Target:
    return Target(what, target, "not measured", None)


def ordered(by_model: Results) -> list[tuple[str, Any]]:
    return [(model, by_model[model]) for model in zoo.TITLES if model in by_model]


def thousands(rounds: Sequence[float] | None) -> str:
    if not rounds:
        return "-"
    middle, low, high = statistics.median(rounds) / 1e3, min(rounds) / 1e3, max(rounds) / 1e3
    return f"{middle:.3g}" if len(rounds) == 1 else f"{middle:.3g} ({low:.3g}-{high:.3g})"


def times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def mean(values: Sequence[float] | None) -> str:
    return f"{statistics.mean(values):.4f}" if values else "-"


def signed(values: Sequence[float] | None, others: Sequence[float] | None) -> str:
    return f"{statistics.mean(values) - statistics.mean(others):+.4f}" if values and others else "-"


if __name__ == "__main__":
    main()
