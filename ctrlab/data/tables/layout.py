"""Detects how a raw table is stored: format, encoding, dialect, column names, and columns that cannot be read."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ctrlab.data.configs import FileFormat, SourceConfig
from ctrlab.data.tables import columnar, records
from ctrlab.data.tables.archives import STREAM_ERRORS, open_bytes
from ctrlab.data.tables.dialect import Dialect, delimiter_text, find_dialect
from ctrlab.data.tables.encodings import Utf8Stream, detect_encoding
from ctrlab.data.tables.faults import FORMATS_HINT, plural, read_fault
from ctrlab.data.tables.parts import Part
from ctrlab.errors import DataError

HEAD_BYTES = 1 << 18
#: First bytes of files that are no tables, and what they are.
_FOREIGN = {
    b"%PDF": "a PDF document; save its table as CSV",
    b"SQLite format 3": "an SQLite database; export its table as CSV or Parquet",
    b"\x89HDF": "an HDF5 file; save its table as CSV or Parquet",
    b"\x93NUMPY": "a NumPy array; save it as CSV or Parquet",
    b"FEA1": "a Feather file of version 1; save it in version 2",
    b"Obj\x01": "an Avro file; convert it to Parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save its sheet as CSV",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"\x1f\x9d": "compressed by compress (.Z); unpack it",
    b"\x04\x22\x4d\x18": "compressed by lz4; unpack it",
    b"\x89PNG": "a binary file (an image), not a text table; give a table",
    b"GIF8": "a binary file (an image), not a text table; give a table",
    b"\xff\xd8\xff": "a binary file (an image), not a text table; give a table",
}
#: Lines end with CR alone if there are more than this many times as many as line feeds; a few of those occur in joined files.
_MOSTLY_CR = 5
_MARKUP = {b"<!doctype": "a web page", b"<html": "a web page", b"<?xml": "an XML document"}


@dataclass(frozen=True)
class Layout:
    """How a file is stored.

    format: as in `SourceConfig`, never auto. encoding, cr_ends, dialect: of text. cr_ends: whether lines end with CR alone.
    list_columns: columns of lists. ignored: columns that cannot be read, and why.
    details: what the reader of another format found: stored names, or the columns of records.
    """

    format: FileFormat
    column_names: tuple[str, ...]
    encoding: str = "utf-8"
    cr_ends: bool = False
    dialect: Dialect = field(default_factory=lambda: Dialect(","))
    list_columns: tuple[str, ...] = ()
    ignored: dict[str, str] = field(default_factory=dict)
    details: Any = None

    @property
    def is_delimited(self) -> bool:
        """Whether the file is delimited text."""
        return self.format in ("csv", "tsv")

    @property
    def header(self) -> bool:
        """Whether the names are in the file."""
        return self.dialect.header if self.is_delimited else True

    @property
    def delimiter(self) -> str:
        """Text between two cells."""
        return self.dialect.delimiter

    def source(self, given: SourceConfig) -> SourceConfig:
        """The source with everything that was detected."""
        if not self.is_delimited:
            return given.replace(
                format=self.format, header=None, delimiter=None, quote=None, skip_lines=None, comment=None, encoding=None
            )
        dialect = self.dialect
        named = given.column_names or (() if dialect.header else self.column_names)
        return given.replace(
            format=self.format,
            encoding=self.encoding,
            header=dialect.header,
            delimiter=dialect.delimiter,
            quote=dialect.quote or "none",
            skip_lines=dialect.lines_above - int(dialect.header),
            comment=dialect.comment,
            column_names=named,
        )


def detect_layout(part: Part, source: SourceConfig, *, like: Layout | None = None) -> Layout:
    """The layout of a file, detected from its first bytes, where the source does not give it.

    Args:
        like: the layout of the table's first file: a later one has the same dialect, and a header only if it has the same names.

    Raises:
        DataError: empty, not a table, or column names that do not fit.
    """
    head, whole = read_head(part)
    if not head.strip():
        raise DataError(f"{part.name} is empty; {FORMATS_HINT} with rows in it")
    stored = columnar.format_of(head)
    if stored is not None:
        if part.member is not None or not columnar.is_plain(part.path):
            raise DataError(f"{part.name} is a {stored} file in an archive or compressed; unpack it and give that file")
        names, lists, ignored, details = columnar.describe(part.path, stored)
        layout = Layout(stored, _checked_names(part.name, names), list_columns=lists, ignored=ignored, details=details)
    elif source.format in ("parquet", "feather", "orc"):
        title = {"parquet": "Parquet", "feather": "Feather", "orc": "ORC"}[source.format]
        raise DataError(f"{part.name} is not a {title} file (by its first bytes); set its format to auto, csv or tsv")
    else:
        layout = _text_layout(part, head, whole, source, like)
    if source.column_names and not layout.is_delimited and source.column_names != layout.column_names:
        raise DataError(f"{part.name} is a {layout.format} file with column names of its own; leave column_names empty")
    return layout


def read_head(part: Part) -> tuple[bytes, bool]:
    """The first bytes of a file, uncompressed, and whether they are all of it."""
    try:
        with open_bytes(part.path, part.member) as (stream, _):
            head = b""
            while len(head) < HEAD_BYTES and (piece := stream.read(HEAD_BYTES - len(head))):
                head += piece
            return head, len(head) < HEAD_BYTES or not stream.read(1)
    except (pa.ArrowInvalid, *STREAM_ERRORS) as error:
        raise read_fault(part.path, error) from None


def _text_layout(part: Part, head: bytes, whole: bool, source: SourceConfig, like: Layout | None) -> Layout:
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise DataError(f"{part.name} is {what}, then give that file")
    for start, what in _MARKUP.items():
        if head.lstrip()[:20].lower().startswith(start):
            raise DataError(f"{part.name} is {what}, not a table; save its table as CSV, then give that file")
    encoding = _encoding_name(source.encoding) if source.encoding else detect_encoding(head)
    if encoding is None or _is_binary(
        head if encoding == "utf-8" else head.decode(encoding, "replace").encode("utf-8", "replace")
    ):
        raise DataError(f"{part.name} is a binary file, not a text table; {FORMATS_HINT}")
    text = _whole_lines(Utf8Stream(io.BytesIO(head), encoding, False).read(len(head) + 1), whole)
    cr_ends = text.count(b"\r") - text.count(b"\r\n") > _MOSTLY_CR * text.count(b"\n")
    if cr_ends:
        text = text.replace(b"\r", b"\n")
    if not text.strip():
        raise DataError(f"{part.name} is empty; {FORMATS_HINT} with rows in it")
    kind = source.format if source.format in ("jsonl", "json", "libsvm", "libffm") else None
    kind = kind or (records.format_of(text) if source.format == "auto" and source.delimiter is None else None)
    if kind is not None:
        names, lists, ignored, details = records.describe(part.name, text, kind, whole=whole)
        return Layout(
            kind, _checked_names(part.name, names), encoding, cr_ends, list_columns=lists, ignored=ignored, details=details
        )
    return _delimited_layout(part, text, whole, encoding, cr_ends, source, like)


def _delimited_layout(
    part: Part, text: bytes, whole: bool, encoding: str, cr_ends: bool, source: SourceConfig, like: Layout | None
) -> Layout:
    if like is not None and like.is_delimited:
        source = source.replace(delimiter=like.delimiter, quote=like.dialect.quote or "none", comment=like.dialect.comment)
        dialect, first = find_dialect(part.name, text, source.replace(header=True), whole=False)
        # A part without a header has rows where the header would be; one with other names is refused by its columns.
        as_rows = find_dialect(part.name, text, source.replace(header=None, column_names=()), whole=False)[0]
        if sorted(_named(first)) != sorted(like.column_names) and not as_rows.header:
            dialect, first = find_dialect(part.name, text, source.replace(header=False), whole=whole)
            source = source.replace(column_names=like.column_names)
    else:
        dialect, first = find_dialect(part.name, text, source, whole=whole)
    if source.column_names and len(source.column_names) != len(first):
        other, cells = find_dialect(part.name, text, source.replace(delimiter=None, column_names=(), format="auto"), whole=whole)
        hint = (
            f"its cells are divided by {other.delimiter!r}, so leave the delimiter unset"
            + (", and it has a header, so leave the names (and --known) out" if other.header else "")
            if len(cells) == len(source.column_names)
            else "give one name a column, or set the delimiter"
        )
        raise DataError(
            f"{part.name}: column_names gives {plural(len(source.column_names), 'name')} and the first line has "
            f"{plural(len(first), 'cell')}; {hint}"
        )
    names = source.column_names or (first if dialect.header else [f"column_{i}" for i in range(1, len(first) + 1)])
    kind: FileFormat = "tsv" if delimiter_text(dialect.delimiter) == "\t" else "csv"
    return Layout(kind, _checked_names(part.name, names), encoding, cr_ends, dialect)


def _whole_lines(text: bytes, whole: bool) -> bytes:
    """The text without its last line, which may be cut off, if it has others."""
    if whole:
        return text
    end = b"\n" if b"\n" in text else b"\r"
    return text[: text.rfind(end) + 1] or text


def _encoding_name(given: str) -> str:
    import codecs

    name = codecs.lookup(given).name
    return {"utf-8-sig": "utf-8", "ascii": "utf-8", "iso8859-1": "cp1252"}.get(name, name)


def _is_binary(head: bytes) -> bool:
    """Whether control characters make up over a hundredth of a text, apart from one that may be its delimiter."""
    sample = head[: 1 << 14]
    counts = Counter(sample)
    control = [(counts[byte], byte) for byte in range(32) if byte not in (9, 10, 13)]
    delimiter = max((found for found in control if found[1] in (1, 2, 30, 31)), default=(0, 0))[0]
    return sum(count for count, _ in control) - delimiter > max(2, len(sample) // 100)


def _named(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip().removeprefix("\ufeff").strip() or f"column_{i}" for i, name in enumerate(names, 1))


def _checked_names(file: str, names: Sequence[str]) -> tuple[str, ...]:
    cleaned = _named(names)
    repeated = {name for name, count in Counter(cleaned).items() if count > 1}
    if repeated:
        # By position: without a header the "names" would be somebody's data.
        positions = ", ".join([str(i) for i, name in enumerate(cleaned, 1) if name in repeated][:6])
        raise DataError(f"{file} has columns with equal names ({positions}); rename them, or say that it has no header")
    return cleaned
