"""Reads raw tables block by block: CSV, TSV and Parquet, plain, gzip or zstandard, all cells as text.

Memory holds a few blocks whatever the size of the file. Everything that can be wrong with a file is raised as one `DataError`.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ctrlab.data.configs import SourceConfig
from ctrlab.data.tables.faults import LONGEST_LINE, parse_fault, read_fault
from ctrlab.data.tables.layout import Layout, check_file, detect_layout
from ctrlab.errors import DataError

#: Approximate number of cells in a block, whatever the number of columns.
BLOCK_CELLS = 1_000_000
#: Joins the elements of a Parquet list into one text: a control character that does not occur in text.
LIST_SEPARATOR = "\x1f"


class TableReader:
    """An opened raw file.

    column_names: in the order of the file. layout: format, compression and so on. total_bytes: size on disk.
    """

    def __init__(self, path: Path, layout: Layout, block_rows: int | None) -> None:
        self.path = path
        self.layout = layout
        self.column_names = layout.column_names
        self.total_bytes = path.stat().st_size
        self.block_rows = block_rows or max(256, min(1 << 16, BLOCK_CELLS // max(1, len(self.column_names))))
        self._bytes_read = 0

    @property
    def bytes_read(self) -> int:
        """Bytes of `total_bytes` that the running `blocks` or `lines` has consumed; for Parquet in proportion to rows."""
        return self._bytes_read

    def blocks(self, columns: Sequence[str] | None = None, start_row: int = 0) -> Iterator[pl.DataFrame]:
        """Data frames of String columns, at most `block_rows` rows each; an empty cell is null.

        The elements of a Parquet list are joined by `LIST_SEPARATOR`; an empty list is null.

        Args:
            columns: the columns to read, in this order; all by default.
            start_row: skip this many rows; skipped row groups of Parquet are not read, text is parsed and dropped.

        Raises:
            DataError: the file is damaged, ragged or not UTF-8, with the row number where it is known.
        """
        names = list(self.column_names if columns is None else columns)
        self._bytes_read = 0
        batches = (
            self._parquet_batches(names, start_row) if self.layout.format == "parquet" else self._csv_batches(names, start_row)
        )
        pending: list[pa.RecordBatch] = []
        rows = 0
        for batch in batches:
            while batch.num_rows:
                room = self.block_rows - rows
                pending.append(batch.slice(0, room))
                rows += pending[-1].num_rows
                batch = batch.slice(pending[-1].num_rows)
                if rows == self.block_rows:
                    yield self._as_text(pending)
                    pending, rows = [], 0
        if pending:
            yield self._as_text(pending)
        self._bytes_read = self.total_bytes

    def lines(self, chunk_bytes: int, start: int = 0) -> Iterator[bytes]:
        """The uncompressed text after the header line, in chunks of about `chunk_bytes` that end at line ends.

        Args:
            start: skip this many bytes of text, the sum of earlier chunks' lengths (a compressed file is decompressed up to it).

        Raises:
            DataError: the file is damaged, or a line is longer than `LONGEST_LINE`.
        """
        self._bytes_read = 0
        try:
            with pa.OSFile(str(self.path)) as raw:
                stream: Any = raw if self.layout.compression is None else pa.CompressedInputStream(raw, self.layout.compression)
                rest = _after_first_line(stream, self.layout.header, chunk_bytes)
                rest = _skipped(stream, rest, start)
                while piece := stream.read(chunk_bytes):
                    self._bytes_read = raw.tell()
                    end = piece.rfind(b"\n") + 1
                    if not end and len(rest) + len(piece) > LONGEST_LINE:
                        raise pa.ArrowInvalid("straddles")
                    if end:
                        yield rest + piece[:end]
                    rest = piece[end:] if end else rest + piece
                if rest:
                    yield rest
        except (pa.ArrowInvalid, OSError) as error:
            raise parse_fault(self.path, error) from None

    def frame_of(self, chunk: bytes) -> pl.DataFrame:
        """Whole lines of text, parsed as `blocks` does.

        Raises:
            DataError: as `blocks`.
        """
        names = list(self.column_names)
        try:
            batches = list(self._parsed(names, io.BytesIO(chunk), header=False)) if chunk.strip(b"\r\n") else []
        except (pa.ArrowInvalid, OSError) as error:
            raise parse_fault(self.path, self._located(error)) from None
        return self._as_text(batches) if batches else pl.DataFrame(schema=dict.fromkeys(names, pl.String))

    def _as_text(self, batches: list[pa.RecordBatch]) -> pl.DataFrame:
        try:
            return _as_text(batches)
        except pl.exceptions.ComputeError:
            binary = [
                field.name
                for field in batches[0].schema
                if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
            ]
            named = f"column {', '.join(binary)} holds" if binary else "a column holds"
            raise DataError(
                f"{self.path.name}: {named} bytes that are not UTF-8 text; convert it to text or leave it out"
            ) from None

    def _csv_batches(self, names: list[str], start_row: int) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._parsed_file(names, use_threads=True):
                yield batch.slice(min(start_row, batch.num_rows))
                start_row = max(0, start_row - batch.num_rows)
        except (pa.ArrowInvalid, OSError) as error:
            raise parse_fault(self.path, self._located(error)) from None

    def _parsed_file(self, names: list[str], *, use_threads: bool) -> Iterator[pa.RecordBatch]:
        with pa.OSFile(str(self.path)) as raw:
            stream = raw if self.layout.compression is None else pa.CompressedInputStream(raw, self.layout.compression)
            for batch in self._parsed(names, stream, header=self.layout.header, use_threads=use_threads):
                self._bytes_read = raw.tell()
                yield batch

    def _parsed(self, names: list[str], stream: Any, *, header: bool, use_threads: bool = False) -> Iterator[pa.RecordBatch]:
        layout = self.layout
        yield from pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(
                block_size=LONGEST_LINE,
                column_names=list(self.column_names),
                skip_rows=int(header),
                use_threads=use_threads,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=layout.delimiter,
                quote_char='"' if layout.quoted else False,
                newlines_in_values=layout.multiline,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(self.column_names, pa.string()),
                include_columns=names,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )

    def _located(self, error: Exception) -> Exception:
        """The same error with its row number, which pyarrow only reports when it reads in one thread."""
        try:
            for _ in self._parsed_file(list(self.column_names), use_threads=False):
                pass
        except (pa.ArrowInvalid, OSError) as located:
            return located
        return error

    def _parquet_batches(self, names: list[str], start_row: int) -> Iterator[pa.RecordBatch]:
        try:
            with pq.ParquetFile(self.path) as file:
                total, done, first = max(1, file.metadata.num_rows), 0, 0
                while first < file.num_row_groups and done + file.metadata.row_group(first).num_rows <= start_row:
                    done, first = done + file.metadata.row_group(first).num_rows, first + 1
                groups = range(first, file.num_row_groups)
                stored = dict(zip(self.column_names, self.layout.stored_names, strict=True))
                wanted = [stored[name] for name in names]
                for batch in file.iter_batches(batch_size=self.block_rows, columns=wanted, row_groups=groups):
                    skipped = min(batch.num_rows, max(0, start_row - done))
                    done += batch.num_rows
                    self._bytes_read = self.total_bytes * done // total
                    yield _empty_text_to_null(batch.select(wanted).rename_columns(names)).slice(skipped)
        except (pa.ArrowInvalid, OSError) as error:
            raise read_fault(self.path, error) from None


def open_table(
    source: SourceConfig, block_rows: int | None = None, *, part: int = 0, max_bytes: int | None = None
) -> TableReader:
    """Open one of the source's files and detect its layout.

    Args:
        block_rows: rows per block; by default about `BLOCK_CELLS` cells.
        part: index into `source.paths`.
        max_bytes: refuse a larger file.

    Raises:
        DataError: no such file, too large, empty, not a table, or names that do not fit.
    """
    path = Path(source.paths[part]).expanduser()
    check_file(path, max_bytes)
    return TableReader(path, detect_layout(path, source), block_rows)


def _after_first_line(stream: Any, header: bool, chunk_bytes: int) -> bytes:
    """The first bytes after the header line, or after the byte order mark if there is no header."""
    head: bytes = stream.read(chunk_bytes)
    if not header:
        return head.removeprefix(b"\xef\xbb\xbf")
    while b"\n" not in head and (more := stream.read(chunk_bytes)):
        head += more
    return head[head.index(b"\n") + 1 :] if b"\n" in head else b""


def _skipped(stream: Any, rest: bytes, start: int) -> bytes:
    """Skip `start` bytes of `rest` and the stream; returns the bytes after them that were already read."""
    while start > len(rest):
        start -= len(rest)
        rest = stream.read(min(start, LONGEST_LINE))
        if not rest:
            return b""
    return rest[start:]


def _as_text(batches: list[pa.RecordBatch]) -> pl.DataFrame:
    frame = pl.from_arrow(pa.Table.from_batches(batches))
    assert isinstance(frame, pl.DataFrame)
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, (pl.List, pl.Array))]
    others = [name for name, dtype in frame.schema.items() if dtype != pl.String and name not in lists]
    if others:
        frame = frame.with_columns(pl.col(others).cast(pl.String))
    if lists:
        joined = pl.col(lists).cast(pl.List(pl.String)).list.join(LIST_SEPARATOR, ignore_nulls=True)
        frame = frame.with_columns(joined.replace("", None))
    return frame


def _empty_text_to_null(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Empty texts of Parquet as null, like empty cells of CSV."""

    def mended(column: pa.Array) -> pa.Array:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return column
        return pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)

    return pa.RecordBatch.from_arrays([mended(column) for column in batch.columns], names=batch.schema.names)
