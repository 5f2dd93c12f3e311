"""Training speed with waiting OpenMP threads as users have them: set in the environment, or by the engine after torch's import.

    python benchmarks/import_order.py [--models deepfm dcn] [--rounds 5] [--threads 2] [--quick]

Two processes a model train in turn, over the same rows: one with OMP_WAIT_POLICY=PASSIVE in its environment, as the processes
that ctrlab starts, and one without, where torch was imported long before `fit` could say anything.
"""

import argparse
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common import PROJECT, Table, at_least, write_json
from contest import WORK, Entry, running
from criteo_shaped import criteo_dims, stored

BATCH, STEPS = 4096, 30
#: Rows a second without the environment variable, against those with it.
TARGET = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["deepfm", "dcn"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a smoke run of a few steps; writes import_order-quick.json")
    args = parser.parse_args()
    rows = stored(WORK, 20_000 if args.quick else STEPS * BATCH * 2, criteo_dims(50_000 if args.quick else 1_060_000))
    found = {model: rates(model, rows, args) for model in args.models}
    ratios = {model: [late / early for early, late in zip(*both.values(), strict=True)] for model, both in found.items()}
    table = Table(
        "Rows a second without OMP_WAIT_POLICY, against those with it", ["model", "median ratio", "least", "greatest"],
        [[model, *(f"{value:.3f}" for value in (statistics.median(own), min(own), max(own)))] for model, own in ratios.items()],
    )  # fmt: skip
    targets = [
        at_least(f"training {model}, torch imported first, against the variable set", statistics.median(own), TARGET)
        for model, own in ratios.items()
    ]
    print(table, *targets, sep="\n")
    command = "benchmarks/import_order.py"
    print(write_json("import_order", found, tables=[table], targets=targets, quick=args.quick, command=command))


def rates(model: str, rows: Path, args: argparse.Namespace) -> dict[str, list[float]]:
    """{"set": rows a second of each round, "unset": those of the other process}."""
    count = 3 if args.quick else STEPS
    found: dict[str, list[float]] = {"set": [], "unset": []}
    with ExitStack() as stack:
        contenders: dict[str, Any] = {}
        for name in found:
            entry = Entry(name, "own", model=model, wait_policy="PASSIVE" if name == "set" else None)
            contenders[name] = stack.enter_context(running(entry, rows, args.threads, PROJECT))
        for contender in contenders.values():
            contender.tell("steps", count=2)  # compiles
        for _ in range(2 if args.quick else args.rounds):
            for name, contender in contenders.items():
                found[name].append(contender.tell("steps", count=count)["rows_per_second"])
    return found


if __name__ == "__main__":
    main()
