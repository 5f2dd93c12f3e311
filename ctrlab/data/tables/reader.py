"""Reads raw tables block by block, all cells as text: delimited text of any dialect, JSON, libsvm, Parquet, Feather, ORC.

Memory holds a few blocks whatever the size of the file. Everything that can be wrong with a file is raised as one `DataError`.

Delimited text is divided into rows and cells by compiled loops alone: plain text (a delimiter of one byte, UTF-8, no quotes) as
it stands, any other after it was normalised (`compiled.text_rows`).
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from ctrlab.data.configs import SourceConfig
from ctrlab.data.tables import columnar, records
from ctrlab.data.tables.archives import STREAM_ERRORS, open_bytes
from ctrlab.data.tables.columnar import LIST_SEPARATOR as LIST_SEPARATOR
from ctrlab.data.tables.dialect import BLANKS, normalise_text
from ctrlab.data.tables.encodings import Utf8Stream, as_cp1252, is_utf8
from ctrlab.data.tables.faults import FORMATS_HINT, LONGEST_LINE, read_fault
from ctrlab.data.tables.layout import Layout, detect_layout
from ctrlab.data.tables.lines import LineCounts
from ctrlab.data.tables.notes import Note
from ctrlab.data.tables.parts import Part, find_parts
from ctrlab.errors import DataError

#: Approximate number of cells in a block, whatever the number of columns.
BLOCK_CELLS = 1_000_000
#: Bytes of text that are divided into rows at a time.
CHUNK_BYTES = 4 << 20
_REPLACED = "\ufffd".encode()


class Cells(NamedTuple):
    """Rows of text as the compiled loops divide them: bytes uint8, and the bytes that end a cell and a row."""

    text: NDArray[np.uint8]
    cell_end: int
    row_end: int


class TableReader:
    """One opened raw file.

    part: where it is. layout: format, dialect and so on. column_names: in the order of the file, those given by folders last.
    lines: how the lines were read so far by the running or last `blocks`. total_bytes: size on disk.
    """

    def __init__(self, part: Part, layout: Layout, block_rows: int | None = None) -> None:
        self.part, self.layout = part, layout
        self.path, self.name = part.path, part.name
        self.column_names = (*layout.column_names, *part.constants)
        self.total_bytes = part.path.stat().st_size
        self.block_rows = block_rows or max(256, min(1 << 16, BLOCK_CELLS // max(1, len(self.column_names))))
        self.lines = LineCounts()
        self._bytes_read = 0

    @property
    def bytes_read(self) -> int:
        """Bytes of `total_bytes` that the running `blocks` or `chunks` has consumed; for stored columns in proportion to rows."""
        return self._bytes_read

    def blocks(self, columns: Sequence[str] | None = None, start_row: int = 0) -> Iterator[pl.DataFrame]:
        """Data frames of String columns, at most `block_rows` rows each; an empty cell is null.

        The elements of a list are joined by `LIST_SEPARATOR`; an empty list is null. So is every cell of an ignored column.

        Args:
            columns: the columns to read, in this order; all by default.
            start_row: skip this many rows; skipped row groups of Parquet are not read, text is parsed and dropped.

        Raises:
            DataError: the file is damaged, or more of its lines cannot be read than `lines.MAX_LEFT_OUT` allows.
        """
        names = list(self.column_names if columns is None else columns)
        self._bytes_read, self.lines = 0, LineCounts()
        with closing(self._frames(names, start_row)) as frames:
            yield from _rebatched(frames, self.block_rows)
        self.lines.check(self.name, len(self.layout.column_names))
        self._bytes_read = self.total_bytes

    def notes(self, lines: LineCounts | None = None) -> list[Note]:
        """What was found about the file: its lines (by default those of the last `blocks`), encoding, and ignored columns."""
        layout = self.layout
        found = (self.lines if lines is None else lines).notes(self.name, layout.header)
        if layout.is_delimited and layout.encoding not in ("utf-8", "utf-16-le", "utf-16-be"):
            found.append(
                Note("encoding", None, f"{self.name} is read as {layout.encoding}", "info", "set encoding if texts look wrong")
            )
        for name, reason in layout.ignored.items():
            found.append(Note("unreadable column", name, f"column {name} is ignored: it {reason}", "warning"))
        return found

    def _frames(self, names: list[str], start_row: int) -> Generator[pl.DataFrame]:
        """Frames of any size, without the first `start_row` rows."""
        raise NotImplementedError

    def _completed(self, columns: dict[str, pl.Series], names: list[str], rows: int) -> pl.DataFrame:
        """The frame of the wanted columns, with those that are ignored or given by folders."""
        for name in names:
            if name in self.part.constants:
                columns[name] = pl.repeat(self.part.constants[name], rows, dtype=pl.String, eager=True)
            elif name in self.layout.ignored:
                columns[name] = pl.repeat(None, rows, dtype=pl.String, eager=True)
        return pl.DataFrame([columns[name].alias(name) for name in names])

    def constant(self, name: str, rows: int) -> pl.Series | None:
        """A column given by the file's folders; None if the file itself holds it."""
        return self._completed({}, [name], rows)[name] if name in self.part.constants else None


class TextReader(TableReader):
    """A file of delimited text."""

    def chunks(self, chunk_bytes: int = CHUNK_BYTES, start: int = 0) -> Generator[bytes]:
        """UTF-8 text below the header, in chunks of about `chunk_bytes` that end at the ends of rows.

        Args:
            start: skip this many bytes of text, the sum of earlier chunks' lengths (a compressed file is decompressed up to it).

        Raises:
            DataError: the file is damaged, or a line is longer than `LONGEST_LINE`.
        """
        self._bytes_read = 0
        try:
            with open_bytes(self.path, self.part.member) as (raw_stream, raw):
                stream = Utf8Stream(raw_stream, self.layout.encoding, self.layout.cr_ends)
                rest = _skipped(stream, _below(stream, self.layout.dialect.lines_above, chunk_bytes), start)
                ended = False
                while not ended:
                    piece = stream.read(chunk_bytes)
                    ended = not piece
                    self._bytes_read = raw.tell()
                    rest += piece
                    end = self._row_end(rest, ended)
                    if len(rest) - (rest.rfind(b"\n", 0, -1) + 1 if ended else end) > LONGEST_LINE:
                        raise DataError(f"{self.name}: a line is longer than {LONGEST_LINE >> 20} MB; {FORMATS_HINT}")
                    if end:
                        yield rest[:end]
                        rest = rest[end:]
        except (pa.ArrowInvalid, *STREAM_ERRORS) as error:
            raise read_fault(self.path, error) from None

    def _row_end(self, text: bytes, ended: bool) -> int:
        """End of the last whole row of a text."""
        dialect = self.layout.dialect
        if ended:
            return len(text)
        if dialect.quote is None or dialect.quote.encode() not in text:
            return text.rfind(b"\n") + 1
        return normalise_text(text, dialect, len(self.layout.column_names), final=False, write=False)[0]

    def plain_cells(self, chunk: bytes) -> Cells | None:
        """A chunk as the compiled loops divide it without being normalised; None if it needs that."""
        dialect = self.layout.dialect
        simple = (
            len(dialect.delimiter) == 1 and dialect.delimiter.isascii() and dialect.escape is None and dialect.comment is None
        )
        if not simple or dialect.delimiter == BLANKS or len(self.layout.column_names) < 2:
            return None
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n")
        if b"\r" in chunk or b"\0" in chunk or (dialect.quote and dialect.quote.encode() in chunk) or not is_utf8(chunk):
            return None
        if (self.layout.encoding != "utf-8" and _REPLACED in chunk) or self._has_header(chunk):
            return None
        if not chunk.endswith(b"\n"):
            chunk += b"\n"
        return Cells(np.frombuffer(chunk, np.uint8), ord(dialect.delimiter), 10)

    def _has_header(self, chunk: bytes) -> bool:
        """Whether the header stands in the text again."""
        line = self.layout.dialect.header_line
        return line is not None and line.encode() in chunk

    def plain_counts(self, chunk: bytes, rows: int) -> LineCounts:
        """The counts of a plain chunk, all of whose lines are rows or blank."""
        lines = chunk.count(b"\n") + (not chunk.endswith(b"\n") and bool(chunk))
        return LineCounts(lines, rows, rows, {"blank": lines - rows} if lines > rows else {})

    def normalised_cells(self, chunk: bytes) -> tuple[Cells, LineCounts]:
        """A chunk normalised, and how its lines were read."""
        from ctrlab.data.tables.compiled.text_rows import CELL_END, ROW_END

        repaired: list[int] = []
        if not is_utf8(chunk):
            lines = chunk.split(b"\n")
            repaired = [number for number, line in enumerate(lines, 1) if not is_utf8(line)]
            for number in repaired:
                lines[number - 1] = as_cp1252(lines[number - 1])
            chunk = b"\n".join(lines)
        elif self.layout.encoding != "utf-8" and _REPLACED in chunk:
            repaired = [number for number, line in enumerate(chunk.split(b"\n"), 1) if _REPLACED in line]
        dialect = self.layout.dialect
        again = dialect.comment is None and self._has_header(chunk)
        if again:
            dialect = replace(dialect, comment=dialect.header_line)
        _, text, counts = normalise_text(chunk, dialect, len(self.layout.column_names))
        if again:
            counts.counts["header again"] = counts.counts.pop("comment", 0)
        if repaired:
            counts.counts["encoding"], counts.first["encoding"] = len(repaired), repaired[0]
        return Cells(text, CELL_END, ROW_END), counts

    def frame_of(self, chunk: bytes, columns: Sequence[str] | None = None) -> tuple[pl.DataFrame, LineCounts]:
        """The rows of a chunk as texts, and how its lines were read."""
        names = list(self.column_names if columns is None else columns)
        cells = self.plain_cells(chunk)
        divided = self._divided(cells, names, chunk.count(b"\n") + 1) if cells else None
        if divided is not None:
            return divided, self.plain_counts(chunk, len(divided))
        cells, counts = self.normalised_cells(chunk)
        divided = self._divided(cells, names, counts.rows)
        assert divided is not None
        return divided, counts

    def _divided(self, cells: Cells, names: list[str], rows: int) -> pl.DataFrame | None:
        from ctrlab.data.encoding.compiled import rows as compiled
        from ctrlab.data.encoding.fields.vocabulary import arrow_texts, words_of
        from ctrlab.data.tables.cells import PLAIN_CELLS

        own = [name for name in names if name not in self.part.constants]
        slots = {name: slot for slot, name in enumerate(own)}
        kinds = [(compiled.AS_SPAN, slots[name]) if name in slots else (compiled.SKIPPED, 0) for name in self.layout.column_names]
        kind, slot = np.array(kinds, np.int64).T.copy()
        spans = np.empty((len(own), rows, 2), np.int64)
        keys, numbers, irregular = np.empty((0, rows), np.uint64), np.empty((0, rows)), np.empty((0, 4), np.int64)
        trim = np.zeros(len(kinds), np.bool_)
        found, _ = compiled.split_rows(*cells, kind, slot, trim, words_of(PLAIN_CELLS), keys, numbers, spans, irregular)
        if found < 0:
            return None
        columns = {
            name: arrow_texts(*compiled.gather_spans(cells.text, one, found)).replace("", None)
            for name, one in zip(own, spans, strict=True)
        }
        return self._completed(columns, names, found)

    def _frames(self, names: list[str], start_row: int) -> Generator[pl.DataFrame]:
        self.lines = above(self.layout)
        with closing(self.chunks()) as chunks:
            for chunk in chunks:
                frame, counts = self.frame_of(chunk, names)
                self.lines += counts
                self.lines.check(self.name, len(self.layout.column_names))
                yield frame.slice(start_row)
                start_row = max(0, start_row - len(frame))


class RecordReader(TableReader):
    """A file of records: JSON lines, a JSON array, libsvm or libffm."""

    def _frames(self, names: list[str], start_row: int) -> Generator[pl.DataFrame]:
        layout = self.layout
        assert layout.format in ("jsonl", "json", "libsvm", "libffm")
        try:
            with open_bytes(self.path, self.part.member) as (raw_stream, raw):
                stream = Utf8Stream(raw_stream, layout.encoding, layout.cr_ends)
                found = records.frames(self.name, stream, layout.format, layout.column_names, layout.details, layout.list_columns)
                for frame, counts in found:
                    self._bytes_read = raw.tell()
                    self.lines += counts
                    self.lines.check(self.name, len(layout.column_names))
                    yield self._completed(frame.to_dict(), names, len(frame)).slice(start_row)
                    start_row = max(0, start_row - len(frame))
        except (pa.ArrowInvalid, *STREAM_ERRORS) as error:
            raise read_fault(self.path, error) from None


class ColumnarReader(TableReader):
    """A file of stored columns: Parquet, Feather or ORC."""

    def _frames(self, names: list[str], start_row: int) -> Generator[pl.DataFrame]:
        layout = self.layout
        assert layout.format in ("parquet", "feather", "orc")
        own = [name for name in names if name not in self.part.constants and name not in layout.ignored]
        # A table without readable columns among the wanted ones still has rows: one column is read for their number.
        wanted = own or [next(name for name in layout.column_names if name not in layout.ignored)]
        places = [layout.column_names.index(name) for name in wanted]
        for columns, rows, share in columnar.frames(self.path, layout.format, places, start_row, self.block_rows):
            self._bytes_read = int(self.total_bytes * min(1.0, share))
            self.lines += LineCounts(rows, rows, rows)
            yield self._completed(dict(zip(wanted, columns, strict=True)), names, rows)


class Table:
    """All files of a source, one after the other, as one table with the columns of the first.

    readers: of its files.
    """

    def __init__(self, readers: list[TableReader]) -> None:
        self.readers = readers
        first = readers[0]
        self.path, self.name, self.layout, self.column_names = first.path, first.name, first.layout, first.column_names
        self.total_bytes = sum(reader.total_bytes for reader in readers)

    @property
    def bytes_read(self) -> int:
        """Bytes of `total_bytes` that the running `blocks` has consumed."""
        return sum(reader.bytes_read for reader in self.readers)

    @property
    def lines(self) -> LineCounts:
        """How the lines of all files were read so far."""
        return sum((reader.lines for reader in self.readers), LineCounts())

    def notes(self) -> list[Note]:
        """What was found about the files that were read so far, each finding once."""
        found = [note for reader in self.readers if reader.lines.lines for note in reader.notes()]
        return list(dict.fromkeys(found))

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """The blocks of all files, as `TableReader.blocks`."""
        names = list(self.column_names if columns is None else columns)
        for reader in self.readers:
            yield from reader.blocks(names)


def open_readers(source: SourceConfig, block_rows: int | None = None, *, max_bytes: int | None = None) -> list[TableReader]:
    """Open all files of a source and detect their layouts; `reader.part.number` is the index of the path each belongs to.

    Args:
        block_rows: rows per block; by default about `BLOCK_CELLS` cells.
        max_bytes: refuse larger files.

    Raises:
        DataError: no such file, too large, empty, not a table, or a file with other columns than the first.
    """
    readers: list[TableReader] = []
    for part in find_parts(source, max_bytes):
        # Files of one path are parts of one table; those of several paths may be splits, whose columns the encoder compares.
        first = next((reader for reader in readers if reader.part.number == part.number), None)
        readers.append(_open(part, source, first, block_rows))
    return readers


def open_table(source: SourceConfig, block_rows: int | None = None, *, part: int = 0, max_bytes: int | None = None) -> Table:
    """Open the table of one of the source's paths: a file, or the files of a folder.

    Args:
        part: index into `source.paths`. Others as in `open_readers`.

    Raises:
        DataError: as `open_readers`.
    """
    return Table(open_readers(source.replace(paths=(source.paths[part],)), block_rows, max_bytes=max_bytes))


def above(layout: Layout) -> LineCounts:
    """The counts of the lines above the first row."""
    lines = layout.dialect.lines_above if layout.is_delimited else 0
    return LineCounts(lines, counts={"above": lines}) if lines else LineCounts()


def _open(part: Part, source: SourceConfig, first: TableReader | None, block_rows: int | None) -> TableReader:
    layout = detect_layout(part, source, like=first.layout if first else None)
    if both := sorted(set(layout.column_names) & set(part.constants)):
        raise DataError(f"{part.name} has a column {both[0]}, which its folder's name gives too; rename one of them")
    records_of = ("jsonl", "json", "libsvm", "libffm")
    kind = TextReader if layout.is_delimited else RecordReader if layout.format in records_of else ColumnarReader
    reader = kind(part, layout, block_rows)
    if first is not None and (missing := [name for name in first.column_names if name not in reader.column_names]):
        raise DataError(
            f"{part.path} has no column {', '.join(missing[:5])}, which {first.path.name} has; parts of one table need the same "
            "columns, so mend that file or leave it out"
        )
    return reader


def _below(stream: Utf8Stream, lines: int, chunk_bytes: int) -> bytes:
    """The first bytes below a number of lines."""
    head = b""
    while lines:
        place = head.find(b"\n")
        if place >= 0:
            head, lines = head[place + 1 :], lines - 1
        elif piece := stream.read(chunk_bytes):
            head += piece
        else:
            return b""
    return head


def _skipped(stream: Utf8Stream, rest: bytes, start: int) -> bytes:
    """Skip `start` bytes of `rest` and the stream; returns the bytes after them that were already read."""
    while start > len(rest):
        start -= len(rest)
        rest = stream.read(min(start, LONGEST_LINE))
        if not rest:
            return b""
    return rest[start:]


def _rebatched(frames: Iterator[pl.DataFrame], block_rows: int) -> Iterator[pl.DataFrame]:
    """The same rows in frames of `block_rows` rows, the last one smaller."""
    pending: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        while len(frame):
            pending.append(frame.head(block_rows - rows))
            rows += len(pending[-1])
            frame = frame.slice(len(pending[-1]))
            if rows == block_rows:
                yield pl.concat(pending)
                pending, rows = [], 0
    if pending:
        yield pl.concat(pending)


def file_identity(path: Path) -> list[Any]:
    """What tells one version of a file from another: path, size and time of its last change."""
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]
