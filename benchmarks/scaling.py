"""How the cost of training grows: with rows, ids, vector width, layers and fields, one at a time. Under four minutes.

    python benchmarks/scaling.py [--threads 2] [--steps 40] [--quick]

DeepFM by ctrlab's own `fit`, batch 4096, Criteo-shaped rows; by default 39 fields x 16, MLP 400x3, 1.06 M ids.
Each setting is a process of its own. The cost of a step must not depend on the number of rows or ids: it
is set by the batch's distinct ids, which grow slowly with the table. An L2 term over whole tables is the counter-example.
The result is written after every sweep, so that an interrupted run keeps the finished ones.
"""

import argparse
from typing import Any

from common import PROJECT, Table, Target, write_json
from contest import WORK, Entry, running
from criteo_shaped import TOTAL_IDS, criteo_dims, stored

BATCH, NUM_ROWS, STEPS = 4096, 170_000, 40
#: Largest allowed ratio of a step over 10 M ids to one over 1.06 M, and over most rows to fewest.
GROWTH = 1.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each setting but whole epochs and whole tables")
    parser.add_argument("--quick", action="store_true", help="small sizes, few steps; writes scaling-quick.json")
    args = parser.parse_args()
    tables, raw = [], {}
    for title, runs in sweeps(args.quick).items():
        raw[title] = [{"setting": setting, **step_of(args, **own)} for setting, own in runs]
        tables.append(table_of(title, raw[title]))
        print(tables[-1], flush=True)
        found, targets = raw | {"threads": args.threads, "steps": args.steps}, targets_of(raw)
        path = write_json("scaling", found, tables=tables, targets=targets, quick=args.quick)
    print(*targets, path, sep="\n")


def sweeps(quick: bool) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """{swept setting: [(its value, changes to the defaults)]}."""
    rows = (20_000, 40_000) if quick else (50_000, 200_000, 800_000)
    ids = (10_000, 100_000) if quick else (10_000, 100_000, TOTAL_IDS, 10_000_000)
    dense = (10_000,) if quick else (10_000, 100_000, TOTAL_IDS)
    return {
        "Rows (whole epoch)": [(f"{n:,}", {"num_rows": n, "epoch": True}) for n in rows],
        "Ids, Adam": [(f"{n:,}", {"ids": n}) for n in ids],
        "Ids, lazy Adam": [(f"{n:,}", {"ids": n, "optimizer": "lazy_adam"}) for n in ids],
        "Ids, Adam with L2 over whole tables": [(f"{n:,}", {"ids": n, "l2": 1e-6, "steps": 10}) for n in dense],
        "Vector width d": [(str(d), {"embed_dim": d}) for d in ((8, 16) if quick else (4, 8, 16, 32, 64))],
        "MLP layers of 400": [(str(n), {"mlp_dims": [400] * n}) for n in ((1, 2) if quick else (1, 2, 3, 6))],
        "Fields (ids in proportion)": [
            (str(n), {"fields": n, "ids": TOTAL_IDS * n // 39 if not quick else 1000 * n})
            for n in ((10, 39) if quick else (10, 20, 39, 78))
        ],
    }


def step_of(
    args: argparse.Namespace,
    *,
    num_rows: int = NUM_ROWS,
    ids: int = TOTAL_IDS,
    fields: int = 39,
    epoch: bool = False,
    steps: int | None = None,
    **settings: Any,
) -> dict[str, float]:
    """rows_per_second and step_ms of one setting; of an epoch also its seconds."""
    dims = criteo_dims(100_000 if args.quick and ids == TOTAL_IDS else ids, fields)
    rows = stored(WORK, min(num_rows, 40_000) if args.quick else num_rows, dims)
    entry = Entry("ctrlab", "own", settings=tuple(settings.items()))
    with running(entry, rows, args.threads, PROJECT / ".venv-interop" / "bin" / "python") as contender:
        count = num_rows // BATCH - 1 if epoch else steps or args.steps
        contender.tell("steps", count=2)  # compiles what is not yet compiled
        rate = contender.tell("steps", count=3 if args.quick else count)["rows_per_second"]
    return {"rows_per_second": rate, "step_ms": 1e3 * BATCH / rate, "seconds": num_rows / rate}


def table_of(title: str, runs: list[dict[str, Any]]) -> Table:
    whole = "epoch" in title
    rows = []
    for run in runs:
        cells = [run["setting"], f"{run['rows_per_second'] / 1e3:.1f} k", f"{run['step_ms']:.1f}", f"{run['seconds']:.1f}"]
        rows.append(cells if whole else cells[:3])
    return Table(title, [title.split(" (")[0], "rows/s", "ms a step of 4096", *(["seconds"] if whole else [])], rows)


def targets_of(raw: dict[str, Any]) -> list[Target]:
    """Linear in rows, and no growth with the table beyond that of the batch's distinct ids."""
    pairs = {"cost is linear in rows": "Rows (whole epoch)", "Adam: ids": "Ids, Adam", "lazy Adam: ids": "Ids, lazy Adam"}
    targets = []
    for what, title in pairs.items():
        runs = raw.get(title, [])
        if not runs:
            continue
        few, many = (runs[0], runs[-1]) if "rows" in what else runs[-2:]
        growth = many["step_ms"] / few["step_ms"]
        text = f"{what}, {many['setting']} against {few['setting']}"
        targets.append(Target(text, f"at most {GROWTH}x a step", f"{growth:.2f}x", growth <= GROWTH))
    return targets


if __name__ == "__main__":
    main()
