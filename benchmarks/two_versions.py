"""Two versions of ctrlab on one machine: another checkout against this one, interleaved, and the peers beside them.

    git worktree add ../before COMMIT
    python benchmarks/two_versions.py --before ../before [--models deepfm dcn ...] [--rounds 3] [--without-peers]
    python benchmarks/two_versions.py --before ../before --models --scripts "spectra.py --rows 200000" preview.py

Training is timed as in `training.py`: each version and each peer is a process of its own, which stays alive through all rounds.
A script runs as a whole in each version, one after the other; its targets are put side by side. Nothing here decides about a
target: `benchmarks/results/two_versions.json` keeps both figures of each.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import zoo
from common import PROJECT, Table, result_path, write_json
from contest import WORK, Entry, running
from criteo_shaped import criteo_dims, stored
from training import NUM_ROWS, steps_of

BEFORE, AFTER = "before", "after"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the other version")
    parser.add_argument("--models", nargs="*", choices=list(zoo.TITLES), default=list(zoo.TITLES))
    parser.add_argument("--scripts", nargs="*", default=[], help="benchmarks that both versions have, with their arguments")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--interop-python", type=Path, default=PROJECT / ".venv-interop" / "bin" / "python")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a smoke run of a few steps; writes two_versions-quick.json")
    args = parser.parse_args()
    path = result_path("two_versions", args.quick)
    found: dict[str, Any] = json.loads(path.read_text())["results"] if path.exists() else {}
    rows = stored(WORK, 20_000 if args.quick else NUM_ROWS, criteo_dims(50_000 if args.quick else 1_060_000))
    for model in args.models:
        found.setdefault("training", {})[model] = training(model, rows, args)
        write(found, args)
    for script in args.scripts:
        found.setdefault("scripts", {})[shlex.split(script)[0]] = targets(script, args.before.resolve())
        write(found, args)


def training(model: str, rows: Path, args: argparse.Namespace) -> dict[str, list[float]]:
    """{contender: rows a second of each round}."""
    entries = [
        Entry(BEFORE, "own", model=model, project=args.before.resolve()),
        Entry(AFTER, "own", model=model),
    ]
    if not args.without_peers:
        entries += [Entry("FuxiCTR", "peer_fuxictr", model=model)]
        entries += [Entry("DeepCTR-Torch", "peer_deepctr", model=model)] if model != "gdcn" else []  # it has none
    with ExitStack() as stack:
        contenders = [stack.enter_context(running(entry, rows, args.threads, args.interop_python)) for entry in entries]
        counts = [steps_of(contender, args.quick) for contender in contenders]
        found: dict[str, list[float]] = {contender.entry.label: [] for contender in contenders}
        for number in range(1 if args.quick else args.rounds):
            # Alternately forward and backward: a machine that gets slower must not favour who is first.
            order = list(zip(contenders, counts, strict=True))
            for contender, count in order if number % 2 == 0 else reversed(order):
                found[contender.entry.label].append(contender.tell("steps", count=count)["rows_per_second"])
    return found


def targets(script: str, before: Path) -> dict[str, dict[str, str]]:
    """{target: {"target": text, "before": measured, "after": measured}} of a benchmark."""
    found: dict[str, dict[str, str]] = {}
    name, *rest = shlex.split(script)
    for label, project in ((BEFORE, before), (AFTER, PROJECT)):
        kept = project / "benchmarks" / "results" / f"{Path(name).stem}.json"
        earlier = kept.read_bytes() if kept.exists() else None
        kept.unlink(missing_ok=True)  # a run that fails must not pass for an earlier one
        subprocess.run([sys.executable, str(project / "benchmarks" / name), *rest], cwd=project, check=False,
                       env=environment(project))  # fmt: skip
        measured = json.loads(kept.read_text())["targets"] if kept.exists() else []
        for one in measured:
            found.setdefault(one["what"], {"target": one["target"]})[label] = one["measured"]
        if earlier is not None:  # the benchmark's own result is of another machine perhaps: it stays
            kept.write_bytes(earlier)
    return found


def environment(project: Path) -> dict[str, str]:
    """This process's, with the code of `project`."""
    return {**os.environ, "PYTHONPATH": str(project)}


def write(found: dict[str, Any], args: argparse.Namespace) -> None:
    """Called after every model and script, so that an interrupted run keeps the finished ones."""
    tables = [
        table for table in (training_table(found.get("training", {})), scripts_table(found.get("scripts", {}))) if table.rows
    ]
    print(*tables, sep="\n", flush=True)
    command = "benchmarks/two_versions.py --before CHECKOUT"
    write_json("two_versions", found, tables=tables, targets=[], quick=args.quick, command=command)


def training_table(found: dict[str, dict[str, list[float]]]) -> Table:
    rows = []
    for model, rates in found.items():
        middle = {label: statistics.median(own) for label, own in rates.items()}
        pairs = [after / before for before, after in zip(rates[BEFORE], rates[AFTER], strict=True)]
        peers = {label: rate for label, rate in middle.items() if label not in (BEFORE, AFTER)}
        faster = max(peers.values(), default=None)
        rows.append([
            zoo.TITLES[model],
            *(f"{middle[label] / 1e3:.3g}" for label in (BEFORE, AFTER)),
            f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})",
            "-" if faster is None else f"{faster / 1e3:.3g}",
            *("-" if faster is None else f"{middle[label] / faster:.2f}x" for label in (BEFORE, AFTER)),
        ])  # fmt: skip
    return Table(
        "Training in float32, thousand rows a second",
        ["model", "before", "after", "after : before", "faster peer", "before : peer", "after : peer"],
        rows,
        "Medians over interleaved rounds; after : before is the median of the rounds' own ratios, with its range.",
    )


def scripts_table(found: dict[str, dict[str, dict[str, str]]]) -> Table:
    rows = [
        [Path(script).stem, what, one["target"], one.get(BEFORE, "-"), one.get(AFTER, "-")]
        for script, own in found.items()
        for what, one in own.items()
    ]
    return Table("Targets of other benchmarks", ["benchmark", "what", "target", "before", "after"], rows, "")


if __name__ == "__main__":
    main()
