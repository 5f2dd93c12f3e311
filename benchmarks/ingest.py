"""From a Criteo-shaped text file to an encoded dataset: rows a second, CPU, memory, and how they grow with the rows.

python benchmarks/ingest.py [--rows 2 4 8] [--folder DIR] [--peer PYTHON] [--quick]

Each size is encoded in a process of its own, whose peak memory is what the system says of it. `--peer` names the interpreter of
an environment that holds FuxiCTR, whose preprocessing then encodes the first `--peer-rows` rows of the same file.
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

from common import markdown_table, write_json

CRITEO_ROWS = 45_840_617
_PEER = """
import resource, sys, time
import polars as pl
from fuxictr.preprocess import FeatureProcessor, build_dataset
table, folder = sys.argv[1:]
numbers, words = [f"I{i}" for i in range(1, 14)], [f"C{i}" for i in range(1, 27)]
columns = [{"name": numbers, "active": True, "dtype": "float", "type": "numeric", "fill_na": 0},
           {"name": words, "active": True, "dtype": "str", "type": "categorical", "fill_na": ""}]
start = time.perf_counter()
processor = FeatureProcessor(feature_cols=columns, label_col={"name": "label", "dtype": "float"}, dataset_id="peer", data_root=folder)
build_dataset(processor, train_data=table, data_block_size=0)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def encode(table: str, folder: str) -> None:
    """In a process of its own: encode, and print what it took as JSON."""
    from ctrlab.data.catalog import DATASETS
    from ctrlab.data.configs import SplitConfig
    from ctrlab.data.encode import encode_dataset
    from ctrlab.data.threads import num_threads

    times: list[tuple[float, str]] = []
    start = time.perf_counter()

    def on_progress(fraction: float, message: str) -> None:
        times.append((time.perf_counter() - start, message.split()[0]))

    config = DATASETS["criteo"].config_for(table, SplitConfig(train=0.8, valid=0.1, test=0.1))
    dataset = encode_dataset(config, folder, on_progress=on_progress)
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    steps = {step: max(at for at, name in times if name == step) for step in ("read", "settled", "wrote")}
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


def peer_rate(python: str, folder: Path, rows: int) -> dict[str, float]:
    """FuxiCTR's preprocessing of the first rows, which it wants as CSV with names."""
    from ctrlab.data.catalog.criteo import COLUMN_NAMES

    with (folder / "rows.tsv").open() as text, (folder / "peer.csv").open("w") as csv:
        csv.write(",".join(COLUMN_NAMES) + "\n")
        csv.writelines(line.replace("\t", ",") for line, _ in zip(text, range(rows), strict=False))
    command = [python, "-c", _PEER, str(folder / "peer.csv"), str(folder)]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return {"rows": rows, "rows_per_second": rows / float(seconds), "peak_gb": float(peak)}


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
    parser.add_argument("--peer", help="an interpreter that has FuxiCTR")
    parser.add_argument("--peer-rows", type=int, default=200_000)
    parser.add_argument("--quick", action="store_true", help="a smoke run of 0.1 million rows")
    parser.add_argument("--encode", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.encode:
        encode(*args.encode)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        results = [measure(int(rows * 1e6), Path(folder)) for rows in ([0.1] if args.quick else sorted(args.rows))]
        peer = peer_rate(args.peer, Path(folder), args.peer_rows) if args.peer else None
    report(results, peer, "ingest-quick" if args.quick else "ingest")


def report(results: list[dict[str, Any]], peer: dict[str, float] | None, name: str) -> None:
    headers = ["rows", "ids", "threads", "rows/s", "s: read", "settled", "all", "CPU us/row", "peak GB", "encoded GB"]
    lines = [
        [f"{r['rows']:,}", f"{r['ids']:,}", r["threads"], f"{r['rows'] / r['seconds']:,.0f}", f"{r['until']['read']:.1f}",
         f"{r['until']['settled']:.1f}", f"{r['seconds']:.1f}", f"{r['cpu_seconds'] / r['rows'] * 1e6:.2f}", f"{r['peak_gb']:.2f}",
         f"{r['size_gb']:.2f}"]
        for r in results
    ]  # fmt: skip
    print(markdown_table(headers, lines))
    whole = extrapolated(results)
    if whole:
        print(f"extrapolated to {whole['rows']:,} rows: {whole['seconds']:.0f} s, peak {whole['peak_gb']:.2f} GB")
    if peer:
        print(f"FuxiCTR on {peer['rows']:,} rows: {peer['rows_per_second']:,.0f} rows/s, peak {peer['peak_gb']:.2f} GB")
    write_json(name, {"sizes": results, "extrapolated": whole, "peer": peer})


if __name__ == "__main__":
    main()
