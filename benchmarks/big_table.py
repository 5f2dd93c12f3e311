"""A table larger than memory, d 16 -> 4, against reading the same files twice and writing the same bytes.

The files are dropped from the page cache before each run (`posix_fadvise`; no privilege needed); each run is a process of its
own, and the two alternate. `--params 1e10` needs 50 GB of disk.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Table, Target, at_least, at_most, machine, result_path, stored_result, write_json

from ctrlab.compression.streaming import compress_table

WIDTH, RANK = 16, 4
#: From this many parameters on, the result is a file of its own, because such a run is rare.
HUGE = 5e9
_PIECE = 8 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=float, nargs="+", default=[1e9])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/big-table"), help="where the files go; removed at the end")
    parser.add_argument("--quick", action="store_true", help="1e7 parameters")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: draw the stored figures again")
    parser.add_argument("--part", choices=("plain", "compress"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps({"plain": plain, "compress": compress}[args.part](args.folder)))
        return
    if args.redraw:
        old = stored_result("big_table")
        report(old["results"], command=old["command"], measured_on=old["machine"])
        return
    report([measure(params, args.folder, args.rounds) for params in ([1e7] if args.quick else args.params)], quick=args.quick)


def report(results: list[dict[str, Any]], **how: Any) -> None:
    """Print and write. how: keyword arguments of `write_json`."""
    rows = [
        [f"{r['params']:.0e}", f"{r['plain_seconds']:.1f}", f"{r['plain_gb_per_second']:.2f}", f"{r['compress_seconds']:.1f}",
         f"{r['share_of_rate']:.0%}", f"{r['compress_cpu_seconds']:.1f}", f"{r['peak_mb']:.0f}"] for r in results
    ]  # fmt: skip
    headers = ["parameters", "plain, s", "GB/s", "compress, s", "share of the rate", "CPU, s", "peak memory, MB"]
    table = Table(
        f"Compressing a table from disk, d {WIDTH} -> {RANK}, float32, int64 counts", headers, rows,
        f"{(how.get('measured_on') or machine())['threads']} threads. "
        "Plain: the table read, the counts read, the table read again, as many bytes written.",
    )  # fmt: skip
    targets = [
        target
        for r in results
        for target in (
            at_least(f"{r['params']:.0e} parameters against sequential read + write", r["share_of_rate"], 0.7, "{:.2f}"),
            at_most(f"its peak memory ({r['params']:.0e} parameters)", r["peak_mb"], 1000, "{:.0f} MB"),
        )
    ]
    name = "big_table" if max(r["params"] for r in results) < HUGE else "big_table_1e10"
    if name == "big_table" and not result_path("big_table_1e10").exists():
        targets.append(Target("1e10 parameters", "run once where the disk allows", "not run", None))
    print(table, *targets, sep="\n")
    print(write_json(name, results, tables=[table], targets=targets, **how))


def measure(params: float, folder: Path, rounds: int) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    num_ids = int(params) // WIDTH
    try:
        make_files(folder, num_ids)
        runs = {part: [_run(part, folder) for _ in range(1)] for part in ("plain", "compress")}
        for _ in range(rounds - 1):
            for part in runs:
                runs[part].append(_run(part, folder))
        best = {part: min(found, key=lambda run: run["seconds"]) for part, found in runs.items()}
        moved = 2 * num_ids * WIDTH * 4 + num_ids * 8 + num_ids * RANK * 4
        return {
            "params": num_ids * WIDTH, "bytes_moved": moved, "plain_seconds": best["plain"]["seconds"],
            "plain_gb_per_second": moved / best["plain"]["seconds"] / 1e9, "compress_seconds": best["compress"]["seconds"],
            "share_of_rate": best["plain"]["seconds"] / best["compress"]["seconds"],
            "compress_cpu_seconds": best["compress"]["cpu_seconds"],
            "peak_mb": max(run["peak_mb"] for run in runs["compress"]), "runs": runs,
        }  # fmt: skip
    finally:
        for name in ("table.npy", "counts.npy", "out.safetensors", "plain.bin"):
            (folder / name).unlink(missing_ok=True)


def make_files(folder: Path, num_ids: int) -> None:
    """Random rows of falling variance and Zipf-like counts, a block repeated with small changes: making them is not measured."""
    random = np.random.default_rng(0)
    block = random.standard_normal((1 << 17, WIDTH), dtype=np.float32) * (0.7 ** np.arange(WIDTH, dtype=np.float32)) + 0.1
    counts = np.minimum(random.zipf(1.4, len(block)), 1_000_000).astype(np.int64)
    table = np.lib.format.open_memmap(folder / "table.npy", mode="w+", dtype=np.float32, shape=(num_ids, WIDTH))
    header, count_header = table.offset, np.lib.format.open_memmap(
        folder / "counts.npy", mode="w+", dtype=np.int64, shape=(num_ids,)
    ).offset  # fmt: skip
    del table
    with (folder / "table.npy").open("r+b") as rows, (folder / "counts.npy").open("r+b") as numbers:
        rows.seek(header)
        numbers.seek(count_header)
        for start in range(0, num_ids, len(block)):
            size = min(len(block), num_ids - start)
            rows.write((block[:size] * np.float32(1 + start / num_ids)).data)
            numbers.write(counts[:size].data)
        for file in (rows, numbers):
            file.flush()
            os.fsync(file.fileno())


def _run(part: str, folder: Path) -> dict[str, float]:
    for name in ("table.npy", "counts.npy"):
        with (folder / name).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for name in ("out.safetensors", "plain.bin"):
        (folder / name).unlink(missing_ok=True)
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)  # type: ignore[no-any-return]


def plain(folder: Path) -> dict[str, float]:
    """The table read, the counts read, the table read again, and as many zeros written as latents will be."""
    started = time.perf_counter()
    buffer = bytearray(_PIECE)
    for name in ("table.npy", "counts.npy", "table.npy"):
        with (folder / name).open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while file.readinto(buffer):
                pass
    left = (folder / "table.npy").stat().st_size // WIDTH * RANK
    with (folder / "plain.bin").open("wb", buffering=0) as file:
        while left:
            left -= file.write(memoryview(buffer)[: min(left, _PIECE)])
    return _facts(started)


def compress(folder: Path) -> dict[str, float]:
    started = time.perf_counter()
    compress_table(folder / "table.npy", folder / "counts.npy", RANK, folder / "out.safetensors")
    return _facts(started)


def _facts(started: float) -> dict[str, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
