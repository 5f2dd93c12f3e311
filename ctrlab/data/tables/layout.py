"""Detects how a raw table is stored: format, compression, delimiter, quotes, header and column names."""

import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ctrlab.data.configs import SourceConfig
from ctrlab.data.tables.faults import FORMATS_HINT, megabytes, not_utf8, plural, read_fault
from ctrlab.errors import DataError

_HEAD_BYTES = 1 << 18
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_PARQUET_MAGIC = b"PAR1"
_DELIMITERS = ",\t;|"


@dataclass(frozen=True)
class Layout:
    """How a file is stored.

    format: "csv", "tsv" or "parquet". compression: "gzip", "zstd" or None.
    delimiter, header, quoted, multiline: of text files. multiline: whether quoted cells may hold line feeds.
    list_columns: columns of Parquet lists. stored_names: names in a Parquet file; `column_names` are stripped and not empty.
    plain_lines: whether every line ends with a line feed and no empty line precedes the first row.
    """

    format: str
    column_names: tuple[str, ...]
    compression: str | None = None
    delimiter: str = ","
    header: bool = True
    quoted: bool = True
    multiline: bool = False
    list_columns: tuple[str, ...] = ()
    stored_names: tuple[str, ...] = ()
    plain_lines: bool = True


def detect_layout(path: Path, source: SourceConfig) -> Layout:
    """The layout of a file, detected from its first bytes, where the source does not give it.

    Raises:
        DataError: empty, not a table, or column names that do not fit.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == _PARQUET_MAGIC:
        layout = _parquet_layout(path)
    elif source.format == "parquet":
        raise DataError(f"{path.name} is not a Parquet file (it does not begin with PAR1); set its format to auto, csv or tsv")
    else:
        compression = next((kind for start, kind in _COMPRESSIONS.items() if magic.startswith(start)), None)
        layout = _text_layout(path, source, compression)
    if source.column_names and layout.format == "parquet" and source.column_names != layout.column_names:
        raise DataError(f"{path.name} is a Parquet file with column names of its own; leave column_names empty")
    return layout


def check_file(path: Path, max_bytes: int | None) -> None:
    """Raise DataError unless the path is a readable regular file of at most `max_bytes` bytes."""
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path")
    if path.is_dir():
        raise DataError(f"{path} is a directory; give the path of one file in it")
    if not path.is_file():
        raise DataError(f"{path} is not a regular file; {FORMATS_HINT}")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} may not be read by this user; change its permissions")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path.name} is empty; {FORMATS_HINT} with rows in it")
    if max_bytes is not None and size > max_bytes:
        raise DataError(
            f"{path.name} has {megabytes(size)}, more than the allowed {megabytes(max_bytes)}; "
            "give a smaller file or raise the limit"
        )


def _parquet_layout(path: Path) -> Layout:
    try:
        schema = pq.read_schema(path)
        rows = pq.read_metadata(path).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise read_fault(path, error) from None
    nested = [field.name for field in schema if pa.types.is_nested(field.type) and not _is_flat_list(field.type)]
    if nested:
        raise DataError(
            f"{path.name}: column {', '.join(nested)} holds records or lists of lists; flatten it to values or lists of them"
        )
    names = _checked_names(path.name, schema.names)
    lists = tuple(name for name, field in zip(names, schema, strict=True) if _is_flat_list(field.type))
    if not rows:
        raise DataError(f"{path.name} has no rows; give a file with data")
    return Layout("parquet", names, list_columns=lists, stored_names=tuple(schema.names))


def _is_flat_list(kind: pa.DataType) -> bool:
    """Whether cells are lists of scalar values."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and not pa.types.is_nested(kind.value_type)


def _text_layout(path: Path, source: SourceConfig, compression: str | None) -> Layout:
    head, whole = _head(path, compression)
    text = _decode(path.name, head, whole).replace("\r\n", "\n")
    lines = text.split("\n")
    if not any(line.strip() for line in lines):
        raise DataError(f"{path.name} is empty; {FORMATS_HINT} with rows in it")
    plain_lines = bool(lines[0]) and "\r" not in text.removesuffix("\r")
    lines = [line for line in lines if line][:200]
    delimiter = source.delimiter or ("\t" if source.format == "tsv" else _sniff_delimiter(lines))
    quoted = delimiter != "\t" or b'"' in head
    first = _cells(path.name, lines[0], delimiter, quoted)
    header = source.header
    if header is None:
        header = first == list(source.column_names) if source.column_names else _looks_like_header(first)
    if source.column_names and len(source.column_names) != len(first):
        raise DataError(
            f"{path.name}: column_names gives {plural(len(source.column_names), 'name')} and the first line has "
            f"{plural(len(first), 'cell')}; give one name a column, or set the delimiter"
        )
    if header and whole and len(lines) < 2:
        raise DataError(f"{path.name} has column names and no rows; give a file with data, or say that it has no header")
    names = source.column_names or (first if header else [f"column_{i}" for i in range(1, len(first) + 1)])
    return Layout(
        "tsv" if delimiter == "\t" else "csv",
        _checked_names(path.name, names),
        compression=compression,
        delimiter=delimiter,
        header=header,
        quoted=quoted,
        multiline=quoted and b'"' in head,
        plain_lines=plain_lines,
    )


def _head(path: Path, compression: str | None) -> tuple[bytes, bool]:
    """The first bytes of the uncompressed text, and whether they are all of it."""
    try:
        with pa.OSFile(str(path)) as raw:
            stream: Any = raw if compression is None else pa.CompressedInputStream(raw, compression)
            head: bytes = stream.read(_HEAD_BYTES)
            whole = len(head) < _HEAD_BYTES or not stream.read(1)
    except (pa.ArrowInvalid, OSError) as error:
        raise read_fault(path, error) from None
    return head, whole


def _decode(name: str, head: bytes, whole: bool) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{name} is UTF-16 text; save it as UTF-8 and try again")
    if head.startswith(b"PK\x03\x04"):
        raise DataError(f"{name} is a zip archive or a spreadsheet; unpack it or save it as CSV, then give that file")
    if b"\0" in head or sum(byte < 9 for byte in head[:4096]) > len(head[:4096]) // 100:
        raise DataError(f"{name} is a binary file, not a text table; {FORMATS_HINT}")
    # The head may end in the middle of a character, so only whole lines are decoded, if there are any.
    complete = head if whole else head[: head.rfind(b"\n") + 1] or head
    try:
        return complete.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(name, f"line {complete[: error.start].count(bytes([10])) + 1}") from None


def _sniff_delimiter(lines: list[str]) -> str:
    """The delimiter that splits the first lines into equally many cells; of several, the one with the most cells."""

    def score(delimiter: str) -> tuple[float, int]:
        counts = [line.count(delimiter) for line in lines]
        return (counts.count(counts[0]) / len(counts) if counts[0] else -1.0, counts[0])

    best = max(_DELIMITERS, key=score)
    return best if score(best)[0] > 0 else ","


def _cells(file: str, line: str, delimiter: str, quoted: bool) -> list[str]:
    if not quoted or '"' not in line:
        return line.split(delimiter)
    options = pa_csv.ParseOptions(delimiter=delimiter)
    try:
        table = pa_csv.read_csv(io.BytesIO((line + "\n").encode()), parse_options=options)
    except pa.ArrowInvalid:
        raise DataError(f"{file}: a quote in the first line is not closed on that line; correct the first line") from None
    return list(table.column_names)


def _looks_like_header(cells: list[str]) -> bool:
    """Whether a first line holds column names: none is a number, and none but the first (an index column) is empty."""
    words = cells[1:] if len(cells) > 1 and not cells[0] else cells
    return all(words) and not any(_is_number(word) for word in words)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _checked_names(file: str, names: Sequence[str]) -> tuple[str, ...]:
    cleaned = tuple(name.strip() or f"column_{i}" for i, name in enumerate(names, 1))
    repeated = {name for name, count in Counter(cleaned).items() if count > 1}
    if repeated:
        # By position: without a header the "names" would be somebody's data.
        positions = ", ".join([str(i) for i, name in enumerate(cleaned, 1) if name in repeated][:6])
        raise DataError(f"{file} has columns with equal names ({positions}); rename them, or say that it has no header")
    return cleaned
