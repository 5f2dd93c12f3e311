"""From a Criteo-shaped text file to an encoded dataset: rows a second, CPU, memory, and how they grow with the rows.

python benchmarks/ingest.py [--rows 2 4 8] [--folder DIR] [--quick]

Each size is encoded in a process of its own, whose peak memory is what the system says of it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import Table, at_least, at_most, stored_result, write_json

CRITEO_ROWS = 45_840_617
RATE, PEAK_GB = 200.0, 2.5


def encode(table: str, folder: str) -> None:
    """In a process of its own: encode, and print what it took as JSON."""
    from ctrlab.data.catalog import DATASETS
    from ctrlab.data.configs import SplitConfig
    from ctrlab.data.encoding.encode import encode_dataset
    from ctrlab.data.encoding.threads import num_threads

    times: list[tuple[float, str]] = []
    start = time.perf_counter()

    def on_progress(fraction: float, message: str) -> None:
        times.append((time.perf_counter() - start, message.split()[0]))

    config = DATASETS["criteo"].config_for(table, SplitConfig(train=0.8, valid=0.1, test=0.1))
    dataset = encode_dataset(config, folder, on_progress=on_progress)
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    steps = {step: max(at for at, name in times if name == step) for step in ("read", "fitted", "wrote")}
    print(json.dumps({
        "rows": sum(dataset.summary.rows.values()),
        "ids": sum(dataset.schema.field_dims),
        "threads": num_threads(),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_gb": usage.ru_maxrss / 1e6,
        "until": steps,
        "size_gb": dataset.summary.size_bytes / 1e9,
    }))  # fmt: skip


def measure(rows: int, folder: Path) -> dict[str, Any]:
    from criteo_rows import write_rows

    table = folder / "rows.tsv"
    start = time.perf_counter()
    write_rows(table, rows)
    print(f"made {rows:,} rows, {table.stat().st_size / 1e9:.2f} GB, in {time.perf_counter() - start:.1f} s", flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, __file__, "--encode", str(table), str(Path(out) / "encoded")]
        result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result | {"text_gb": table.stat().st_size / 1e9}


def extrapolated(results: list[dict[str, Any]]) -> dict[str, float] | None:
    """Seconds and gigabytes of the whole of Criteo, by the line through the two largest sizes; None where there is one."""
    if len(results) < 2:
        return None
    before, last = results[-2:]
    more = (CRITEO_ROWS - last["rows"]) / (last["rows"] - before["rows"])
    return {"rows": CRITEO_ROWS} | {what: last[what] + more * (last[what] - before[what]) for what in ("seconds", "peak_gb")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, nargs="+", default=[2, 4, 8], help="millions of rows")
    parser.add_argument("--folder", help="where the files go; they need about 1 GB a million rows")
    parser.add_argument("--quick", action="store_true", help="a smoke run of 0.1 million rows")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: draw the stored figures again")
    parser.add_argument("--encode", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.encode:
        encode(*args.encode)
        return
    if args.redraw:
        old = stored_result("ingest")
        report(old["results"]["sizes"], command="benchmarks/ingest.py", measured_on=old["machine"])
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        results = [measure(int(rows * 1e6), Path(folder)) for rows in ([0.1] if args.quick else sorted(args.rows))]
    report(results, quick=args.quick)


def report(results: list[dict[str, Any]], **how: Any) -> None:
    """Print and write. how: keyword arguments of `write_json`."""
    headers = ["rows", "ids", "threads", "rows/s", "s: read", "fitted", "all", "CPU us/row", "peak GB", "encoded GB"]
    lines = [
        [f"{r['rows']:,}", f"{r['ids']:,}", r["threads"], f"{r['rows'] / r['seconds']:,.0f}", f"{r['until']['read']:.1f}",
         f"{r['until']['fitted']:.1f}", f"{r['seconds']:.1f}",
         f"{r['cpu_seconds'] / r['rows'] * 1e6:.2f}", f"{r['peak_gb']:.2f}",
         f"{r['size_gb']:.2f}"]
        for r in results
    ]  # fmt: skip
    whole, last = extrapolated(results), results[-1]
    note = ""
    if whole:
        note = (f"By the line through the two largest sizes, {whole['rows']:,} rows (all of Criteo) would take "
                f"{whole['seconds']:.0f} s and {whole['peak_gb']:.1f} GB at the peak: extrapolated.")  # fmt: skip
    tables = [Table("Criteo-shaped text to an encoded dataset, vocabulary growing with the rows", headers, lines, note)]
    what = f"ingest of {last['rows'] / 1e6:.2g} M rows, growing vocabulary"
    targets = [
        at_least(what, last["rows"] / last["seconds"] / 1e3, RATE, "{:.0f} k rows/s"),
        at_most("peak memory of the same", last["peak_gb"], PEAK_GB, "{:.2f} GB"),
    ]
    print(*tables, *targets, sep="\n")
    print(write_json("ingest", {"sizes": results, "extrapolated": whole}, tables=tables, targets=targets, **how))


if __name__ == "__main__":
    main()
