"""Mutated tables: every file is read, or refused in one sentence, and every line of it is accounted for.

    python benchmarks/fuzz_tables.py --files 20000 --seed 0 --out benchmarks/results/fuzz_tables.json

A file is a small click log in one of the formats, with bits flipped, its end cut off, or lines doubled, dropped or joined. It is
inspected and encoded within 10 seconds. Counted are tracebacks (any error but a CtrlabError), hangs, and silent losses: files
whose lines differ from those in rows, skipped and reported, or whose encoded rows differ from the rows that were read.
"""

import argparse
import bz2
import gzip
import io
import json
import lzma
import signal
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.orc as orc

from ctrlab.data.configs import SourceConfig
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.tables.draft import draft_config
from ctrlab.data.tables.inspect import inspect_table
from ctrlab.data.tables.reader import TextReader, open_readers
from ctrlab.errors import CtrlabError

LIMIT_SECONDS = 10
ROWS = 150


class Hang(BaseException):
    """The time limit is over."""


def table(rng: np.random.Generator) -> pl.DataFrame:
    """A click log of texts."""
    words = ["news", "a, b", "it's", 'the "best"', "Köln", "x y", "", "s;t", "two\nlines"]
    return pl.DataFrame(
        {
            "click": [str(value) for value in rng.integers(0, 2, ROWS)],
            "site": [f"s{value}" for value in rng.integers(0, 9, ROWS)],
            "text": [words[value] for value in rng.integers(0, len(words), ROWS)],
            "price": [f"{value:.2f}" for value in rng.lognormal(3, 1, ROWS)],
        }
    )


def delimited(separator: str, quoting: str, end: str, encoding: str) -> Callable[[pl.DataFrame], bytes]:
    def write(frame: pl.DataFrame) -> bytes:
        if quoting == "never":
            for mark in (separator, "\n", '"'):
                frame = frame.with_columns(pl.col("text").str.replace_all(mark, " ", literal=True))
        style: Any = quoting
        return frame.write_csv(separator=separator, quote_style=style, line_terminator=end).encode(encoding, "replace")

    return write


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def feather(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return buffer.getvalue()


def as_orc(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    orc.write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), buffer)
    return buffer.getvalue()


def zipped(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", frame.write_csv())
    return buffer.getvalue()


def libsvm(frame: pl.DataFrame) -> bytes:
    rows = frame.select("click", "site", "price").iter_rows()
    return "".join(f"{click} {1 + int(site[1:])}:1 20:{price}\n" for click, site, price in rows).encode()


def libffm(frame: pl.DataFrame) -> bytes:
    rows = frame.select("click", "site", "price").iter_rows()
    return "".join(f"{click} 0:{int(site[1:])}:1 1:20:{price}\n" for click, site, price in rows).encode()


FORMATS: dict[str, Callable[[pl.DataFrame], bytes]] = {
    "csv": delimited(",", "necessary", "\n", "utf-8"),
    "csv, quoted": delimited(",", "always", "\r\n", "utf-8"),
    "csv, semicolons": delimited(";", "necessary", "\r\n", "cp1252"),
    "tsv": delimited("\t", "never", "\n", "utf-8"),
    "control A": delimited("\x01", "never", "\n", "utf-8"),
    "utf-16": delimited(",", "necessary", "\n", "utf-16"),
    "CR": delimited(",", "never", "\r", "utf-8"),
    "csv.gz": lambda frame: gzip.compress(frame.write_csv().encode(), mtime=0),
    "csv.bz2": lambda frame: bz2.compress(frame.write_csv().encode()),
    "csv.xz": lambda frame: lzma.compress(frame.write_csv().encode()),
    "csv.zip": zipped,
    "jsonl": lambda frame: frame.write_ndjson().encode(),
    "json": lambda frame: json.dumps(frame.to_dicts()).encode(),
    "libsvm": libsvm,
    "libffm": libffm,
    "parquet": parquet,
    "feather": feather,
    "orc": as_orc,
}


def mutated(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """The content with one kind of damage, and its name."""
    kind = str(
        rng.choice(["bits", "cut", "doubled lines", "dropped lines", "joined lines", "none"], p=[0.4, 0.15, 0.1, 0.1, 0.2, 0.05])
    )
    if kind == "bits":
        data = bytearray(content)
        for place in rng.integers(0, len(data), int(rng.choice([1, 3, 10]))):
            data[place] ^= 1 << int(rng.integers(0, 8))
        return bytes(data), kind
    if kind == "cut":
        return content[: int(rng.integers(0, len(content)))], kind
    lines = content.split(b"\n")
    place = int(rng.integers(0, len(lines)))
    if kind == "doubled lines":
        lines[place:place] = [lines[place]] * int(rng.integers(1, 4))
    elif kind == "dropped lines":
        del lines[place : place + int(rng.integers(1, 4))]
    elif kind == "joined lines" and place + 1 < len(lines):
        lines[place : place + 2] = [lines[place] + lines[place + 1]]
    return b"\n".join(lines), kind


def lines_in(path: Path, reader: Any) -> int | None:
    """Lines of an uncompressed text in one byte a character or UTF-8, counted apart from the reader; None for other files."""
    if not isinstance(reader, TextReader) or (reader.layout.encoding.startswith("utf-") and reader.layout.encoding != "utf-8"):
        return None
    content = path.read_bytes()
    if content[:2] in (b"\x1f\x8b", b"BZ", b"PK") or content[:4] in (b"\x28\xb5\x2f\xfd", b"\xfd7zX"):
        return None
    content = content.removeprefix(b"\xef\xbb\xbf")
    if reader.layout.cr_ends:
        content = content.replace(b"\r", b"\n")
    return content.count(b"\n") + (not content.endswith(b"\n"))


def outcome(path: Path, out: Path) -> str:
    """What came of a file: encoded, refused, or a silent loss."""
    source = SourceConfig(paths=(str(path),))
    inspection = inspect_table(source)
    label = inspection.label or next((name for name in ("click", "label", "column_1") if name in inspection.column), None)
    config = draft_config(inspection, "fuzz", label=label)
    dataset = encode_dataset(config, out)
    (reader,) = open_readers(config.source)
    rows = sum(map(len, reader.blocks([config.label])))
    there = lines_in(path, reader)
    if not reader.lines.reconciled or (there is not None and there != reader.lines.lines):
        return f"silent loss: {there} lines in the file, {reader.lines}"
    if rows != sum(dataset.summary.rows.values()) or rows != reader.lines.rows:
        return f"silent loss: {rows} rows read, {dataset.summary.rows} encoded, {reader.lines}"
    return "encoded"


def fuzz(files: int, seed: int) -> tuple[Counter[tuple[str, str]], list[dict[str, Any]]]:
    """Outcomes by format, and the files that were neither encoded nor refused."""
    counts: Counter[tuple[str, str]] = Counter()
    faults: list[dict[str, Any]] = []

    def stop(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm.csv"  # loads the compiled loops before there is a time limit
        warm.write_bytes(FORMATS["csv"](table(np.random.default_rng(0))))
        outcome(warm, Path(folder) / "warm.out")
        for number in range(files):
            rng = np.random.default_rng([seed, number])
            name = list(FORMATS)[number % len(FORMATS)]
            content, damage = mutated(FORMATS[name](table(rng)), rng)
            path, out = Path(folder) / f"{number}.dat", Path(folder) / f"{number}.out"
            path.write_bytes(content)
            signal.alarm(LIMIT_SECONDS)
            try:
                found = outcome(path, out)
            except CtrlabError as error:
                found = "refused" if "\n" not in str(error) else f"traceback: several lines: {error}"
            except Hang:
                found = "hang"
            except Exception:
                found = "traceback: " + traceback.format_exc()
            finally:
                signal.alarm(0)
            kind = found.split(":")[0]
            counts[name, kind] += 1
            if kind not in ("encoded", "refused"):
                faults.append({"number": number, "format": name, "damage": damage, "found": found})
            path.unlink()
    signal.signal(signal.SIGALRM, before)
    return counts, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    start = time.perf_counter()
    counts, faults = fuzz(given.files, given.seed)
    kinds = ("encoded", "refused", "traceback", "hang", "silent loss")
    print(f"{'format':18}" + "".join(f"{kind:>13}" for kind in kinds))
    for name in FORMATS:
        print(f"{name:18}" + "".join(f"{counts[name, kind]:>13}" for kind in kinds))
    total = {kind: sum(number for (_, found), number in counts.items() if found == kind) for kind in kinds}
    print(f"{'all':18}" + "".join(f"{total[kind]:>13}" for kind in kinds))
    for fault in faults[:10]:
        print(fault["number"], fault["format"], fault["damage"], fault["found"][-600:])
    if given.out:
        by_format = {name: {kind: counts[name, kind] for kind in kinds} for name in FORMATS}
        result = {"files": given.files, "seed": given.seed, "seconds": time.perf_counter() - start, "total": total}
        given.out.write_text(json.dumps(result | {"formats": by_format, "faults": faults}, indent=1))


if __name__ == "__main__":
    main()
