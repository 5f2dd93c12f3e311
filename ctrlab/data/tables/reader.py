"""Raw tables, block by block: CSV, TSV and Parquet, plain, gzip or zstandard, all cells as text.

Memory holds a few blocks whatever the size of the file. Everything that can be wrong with a file becomes one `DataError`.
"""

import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ctrlab.data.configs import SourceConfig
from ctrlab.errors import DataError, FileReadError

#: A block holds about this many cells, whatever the number of columns.
BLOCK_CELLS = 1_000_000
#: What stands between the elements of a Parquet list once it is text: a control character that no text holds.
LIST_SEPARATOR = "\x1f"
_HEAD_BYTES = 1 << 18
#: A line has no more bytes than this.
LONGEST_LINE = 4 << 20
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_PARQUET_MAGIC = b"PAR1"
_DELIMITERS = ",\t;|"
_FORMATS_HINT = "give a CSV, TSV or Parquet file, plain, .gz or .zst"


@dataclass(frozen=True)
class Layout:
    """How a file turned out to be written.

    delimiter, quoted: mean nothing for Parquet. list_columns: columns of Parquet lists. plain_lines: every line ends
        with a line feed, and none before the first row is empty.
    """

    format: str
    column_names: tuple[str, ...]
    compression: str | None = None
    delimiter: str = ","
    header: bool = True
    quoted: bool = True
    multiline: bool = False
    list_columns: tuple[str, ...] = ()
    plain_lines: bool = True


class TableReader:
    """An opened raw file.

    column_names: names in the order of the file. layout: what was found out about the file.
    total_bytes: size on disk.
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
        """How much of `total_bytes` the running `blocks()` has consumed; for Parquet in proportion to rows."""
        return self._bytes_read

    def blocks(self, columns: Sequence[str] | None = None, start_row: int = 0) -> Iterator[pl.DataFrame]:
        """Frames of String columns, at most `block_rows` rows each; an empty cell is null.

        The elements of a Parquet list are joined by `LIST_SEPARATOR`; an empty list is null.

        Args:
            columns: the columns to read, in this order; all by default.
            start_row: leave out so many rows; Parquet skips them unread, text has to be gone through.

        Raises:
            DataError: the file is damaged, ragged or not UTF-8, with the line where that is known.
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
                    yield _as_text(pending)
                    pending, rows = [], 0
        if pending:
            yield _as_text(pending)
        self._bytes_read = self.total_bytes

    def lines(self, chunk_bytes: int, start: int = 0) -> Iterator[bytes]:
        """The text after the line of names, unpacked, in pieces of about `chunk_bytes` that end where lines do.

        Args:
            start: leave out so many bytes, the length of pieces that an earlier call gave; a packed file is unpacked up to there.

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
            raise self._explain(error) from None

    def frame_of(self, chunk: bytes) -> pl.DataFrame:
        """Whole lines as `blocks` would give them.

        Raises:
            DataError: as `blocks`.
        """
        names = list(self.column_names)
        try:
            batches = list(self._parsed(names, io.BytesIO(chunk), header=False)) if chunk.strip(b"\r\n") else []
        except (pa.ArrowInvalid, OSError) as error:
            raise self._explain(self._located(error)) from None
        return _as_text(batches) if batches else pl.DataFrame(schema=dict.fromkeys(names, pl.String))

    def _csv_batches(self, names: list[str], start_row: int) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._parsed_file(names, use_threads=True):
                yield batch.slice(min(start_row, batch.num_rows))
                start_row = max(0, start_row - batch.num_rows)
        except (pa.ArrowInvalid, OSError) as error:
            raise self._explain(self._located(error)) from None

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
        """The same fault with the number of its row, which pyarrow knows only when it reads in one thread."""
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
                for batch in file.iter_batches(batch_size=self.block_rows, columns=names, row_groups=groups):
                    skipped = min(batch.num_rows, max(0, start_row - done))
                    done += batch.num_rows
                    self._bytes_read = self.total_bytes * done // total
                    yield _empty_text_to_null(batch.select(names)).slice(skipped)
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(self.path, error) from None

    def _explain(self, error: Exception) -> DataError:
        """One sentence for what pyarrow says of a text file."""
        text, name = str(error), self.path.name
        if ragged := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", text):
            line, expected, got = ragged.groups()
            return DataError(
                f"{name}: row {line} has {_count(got, 'cell')} where {expected} are expected; "
                "every row needs one cell a column, so mend or remove that row, or set the delimiter"
            )
        if "UTF8" in text:
            row = re.search(r"Row #(\d+)", text)
            return _not_utf8(name, f"row {row[1]}" if row else "a row")
        if "straddles" in text:
            return DataError(f"{name}: a line is longer than {LONGEST_LINE >> 20} MB; {_FORMATS_HINT}")
        if isinstance(error, pa.ArrowInvalid) and "Empty CSV" in text:
            return DataError(f"{name} has column names and no rows; give a file with data")
        return _damaged(self.path, error)


def open_table(
    source: SourceConfig, block_rows: int | None = None, *, part: int = 0, max_bytes: int | None = None
) -> TableReader:
    """Look at the beginning of one of the source's files and get ready to read it.

    Args:
        block_rows: rows a block; by default about `BLOCK_CELLS` cells.
        part: which of `source.paths` to open.
        max_bytes: refuse a larger file.

    Raises:
        DataError: no such file, too large, empty, not a table, or names that do not fit.
    """
    path = Path(source.paths[part]).expanduser()
    _check_file(path, max_bytes)
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
        raise DataError(f"{path.name} brings its own names ({', '.join(layout.column_names[:5])}, ...); leave column_names empty")
    return TableReader(path, layout, block_rows)


def _check_file(path: Path, max_bytes: int | None) -> None:
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path")
    if path.is_dir():
        raise DataError(f"{path} is a directory; give the path of one file in it")
    if not path.is_file():
        raise DataError(f"{path} is not a regular file; {_FORMATS_HINT}")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} may not be read by this user; change its permissions")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path.name} is empty; {_FORMATS_HINT} with rows in it")
    if max_bytes is not None and size > max_bytes:
        raise DataError(
            f"{path.name} has {_megabytes(size)}, more than the allowed {_megabytes(max_bytes)}; "
            "give a smaller file or raise the limit"
        )


def _parquet_layout(path: Path) -> Layout:
    try:
        schema = pq.read_schema(path)
        rows = pq.read_metadata(path).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from None
    nested = [field.name for field in schema if pa.types.is_nested(field.type) and not _is_flat_list(field.type)]
    if nested:
        raise DataError(
            f"{path.name}: column {', '.join(nested)} holds records or lists of lists; flatten it to values or lists of them"
        )
    lists = tuple(field.name.strip() for field in schema if _is_flat_list(field.type))
    if not rows:
        raise DataError(f"{path.name} has no rows; give a file with data")
    return Layout("parquet", _checked_names(path.name, schema.names), list_columns=lists)


def _is_flat_list(kind: pa.DataType) -> bool:
    """Whether cells are lists of plain values."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and not pa.types.is_nested(kind.value_type)


def _text_layout(path: Path, source: SourceConfig, compression: str | None) -> Layout:
    head, whole = _head(path, compression)
    text = _decode(path.name, head, whole).replace("\r\n", "\n")
    lines = text.split("\n")
    if not any(line.strip() for line in lines):
        raise DataError(f"{path.name} is empty; {_FORMATS_HINT} with rows in it")
    plain_lines = bool(lines[0]) and "\r" not in text.removesuffix("\r")
    lines = [line for line in lines if line][:200]
    delimiter = source.delimiter or ("\t" if source.format == "tsv" else _sniff_delimiter(lines))
    quoted = delimiter != "\t" or b'"' in head
    first = _cells(lines[0], delimiter, quoted)
    header = source.header
    if header is None:
        header = first == list(source.column_names) if source.column_names else _looks_like_header(first)
    if source.column_names and len(source.column_names) != len(first):
        raise DataError(
            f"{path.name}: column_names gives {_count(len(source.column_names), 'name')} and the first line has "
            f"{_count(len(first), 'cell')}; give one name a column, or set the delimiter"
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
    """The first bytes of the text, and whether that is all of it."""
    try:
        with pa.OSFile(str(path)) as raw:
            stream: Any = raw if compression is None else pa.CompressedInputStream(raw, compression)
            head: bytes = stream.read(_HEAD_BYTES)
            whole = len(head) < _HEAD_BYTES or not stream.read(1)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from None
    return head, whole


def _after_first_line(stream: Any, header: bool, chunk_bytes: int) -> bytes:
    """What was read beyond the line of names, or beyond the byte order mark where there are no names."""
    head: bytes = stream.read(chunk_bytes)
    if not header:
        return head.removeprefix(b"\xef\xbb\xbf")
    while b"\n" not in head and (more := stream.read(chunk_bytes)):
        head += more
    return head[head.index(b"\n") + 1 :] if b"\n" in head else b""


def _skipped(stream: Any, rest: bytes, start: int) -> bytes:
    """`rest` and what follows in the stream without the first `start` bytes: what of it was read."""
    while start > len(rest):
        start -= len(rest)
        rest = stream.read(min(start, LONGEST_LINE))
        if not rest:
            return b""
    return rest[start:]


def _decode(name: str, head: bytes, whole: bool) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{name} is UTF-16 text; save it as UTF-8 and try again")
    if head.startswith(b"PK\x03\x04"):
        raise DataError(f"{name} is a zip archive or a spreadsheet; unpack it or save it as CSV, then give that file")
    if b"\0" in head or sum(byte < 9 for byte in head[:4096]) > len(head[:4096]) // 100:
        raise DataError(f"{name} is a binary file, not a text table; {_FORMATS_HINT}")
    # A character cut in two at the end of the head is no fault: judge whole lines where there are any.
    complete = head if whole else head[: head.rfind(b"\n") + 1] or head
    try:
        return complete.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(name, f"line {complete[: error.start].count(bytes([10])) + 1}") from None


def _sniff_delimiter(lines: list[str]) -> str:
    """The character that splits the first lines into equally many cells, and most of them."""

    def score(delimiter: str) -> tuple[float, int]:
        counts = [line.count(delimiter) for line in lines]
        return (counts.count(counts[0]) / len(counts) if counts[0] else -1.0, counts[0])

    best = max(_DELIMITERS, key=score)
    return best if score(best)[0] > 0 else ","


def _cells(line: str, delimiter: str, quoted: bool) -> list[str]:
    if not quoted or '"' not in line:
        return line.split(delimiter)
    options = pa_csv.ParseOptions(delimiter=delimiter)
    table = pa_csv.read_csv(io.BytesIO((line + "\n").encode()), parse_options=options)
    return list(table.column_names)


def _looks_like_header(cells: list[str]) -> bool:
    """Names are words: none empty but the first (an index column has no name), none a number."""
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
    if len(set(cleaned)) < len(cleaned):
        twice = sorted({name for name in cleaned if cleaned.count(name) > 1})
        raise DataError(f"{file} has more than one column named {', '.join(twice)}; rename them, or say that it has no header")
    return cleaned


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
    """An empty text in Parquet means what an empty cell means in CSV."""

    def mended(column: pa.Array) -> pa.Array:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return column
        return pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)

    return pa.RecordBatch.from_arrays([mended(column) for column in batch.columns], names=batch.schema.names)


def _not_utf8(name: str, where: str) -> DataError:
    return DataError(f"{name}: {where} is not UTF-8 text; save the file as UTF-8 and try again")


def _damaged(path: Path, error: Exception) -> DataError:
    if isinstance(error, OSError) and error.errno:
        return FileReadError(f"{path.name} could not be read ({os.strerror(error.errno)}); check the drive and try again")
    if "runcated" in str(error):
        return DataError(f"{path.name} ends too early (its compressed data is cut off); copy or download it again")
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return DataError(f"{path.name} is damaged and cannot be read ({reason}); copy or download it again")


def _count(number: str | int, noun: str) -> str:
    return f"{number} {noun}" if int(number) == 1 else f"{number} {noun}s"


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"
