"""Reads files that store columns with types: Parquet, Feather (Arrow IPC) and ORC. All cells become text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.orc as orc
import pyarrow.parquet as pq

from ctrlab.data.tables.faults import read_fault
from ctrlab.errors import DataError

#: Joins the elements of a list into one text: a control character that does not occur in text.
LIST_SEPARATOR = "\x1f"
Stored = Literal["parquet", "feather", "orc"]
_MAGIC: dict[bytes, Stored] = {b"PAR1": "parquet", b"ARROW1": "feather", b"ORC": "orc"}
#: Rows in which every column is tried before the table is read.
_TRIED_ROWS = 2000
ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, NotImplementedError, pl.exceptions.PolarsError)


def format_of(head: bytes) -> Stored | None:
    """The format that a file's first bytes announce, or None."""
    found = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    is_text = not any(byte < 9 for byte in head[:256])  # the name of a first column may begin with ORC
    return None if found == "orc" and is_text else found


def is_plain(path: Path) -> bool:
    """Whether the file itself, uncompressed, is in one of the formats."""
    with path.open("rb") as file:
        return format_of(file.read(256)) is not None


def describe(path: Path, kind: Stored) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str], tuple[str, ...]]:
    """Names of the columns, those of lists, those that cannot be read with the reason, and the names as they are stored.

    Raises:
        DataError: the file is damaged or has no rows.
    """
    try:
        schema, rows = _schema(path, kind)
        stored = tuple(schema.names)
        names = tuple(name.strip() or f"column_{i}" for i, name in enumerate(stored, 1))
        if not rows:
            raise DataError(f"{path.name} has no rows; give a file with data")
        if not names:
            raise DataError(f"{path.name} has no columns; give a file with data")
        sample = next(iter(_batches(path, kind, range(len(stored)), 0, _TRIED_ROWS)))[0]
    except DataError:
        raise
    except StopIteration:
        raise DataError(f"{path.name} has no rows; give a file with data") from None
    except ERRORS as error:
        raise read_fault(path, error) from None
    reasons = [_reason(column.slice(0, _TRIED_ROWS)) for column in sample.columns]
    ignored = {name: reason for name, reason in zip(names, reasons, strict=True) if reason}
    if len(ignored) == len(names):
        raise DataError(f"{path.name}: column {names[0]} {reasons[0]}, and no other column can be read")
    lists = tuple(name for name, one in zip(names, schema, strict=True) if _is_list(one.type) and name not in ignored)
    return names, lists, ignored, stored


def frames(
    path: Path, kind: Stored, places: Sequence[int], start_row: int, block_rows: int
) -> Iterator[tuple[list[pl.Series], int, float]]:
    """Text columns at these places, the number of rows, and the share of the file read so far, batch by batch.

    Raises:
        DataError: the file is damaged, or a cell cannot be read.
    """
    try:
        for batch, share in _batches(path, kind, places, start_row, block_rows):
            columns = []
            for field, column in zip(batch.schema, batch.columns, strict=True):
                try:
                    columns.append(text_column(column))
                except ERRORS:
                    raise DataError(
                        f"{path.name}: column {field.name} holds {_kind_of(field.type)} that cannot be read; convert it to text "
                        "or leave it out"
                    ) from None
            yield columns, batch.num_rows, share
    except ERRORS as error:
        raise read_fault(path, error) from None


def text_column(column: pa.Array) -> pl.Series:
    """A column as texts; empty texts and empty lists are null, durations are numbers of their unit."""
    column.validate(full=True)  # offsets and characters of a damaged file are not checked when it is read
    column = _plain_values(column)
    if pa.types.is_null(column.type):
        return pl.Series([None] * len(column), dtype=pl.String)
    series = pl.from_arrow(column)
    assert isinstance(series, pl.Series)
    if isinstance(series.dtype, (pl.List, pl.Array)):
        return series.cast(pl.List(pl.String)).list.join(LIST_SEPARATOR, ignore_nulls=True).replace("", None)
    return series.cast(pl.String).replace("", None)


def _plain_values(column: pa.Array) -> pa.Array:
    """The column in a type that polars casts to text."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_values(column.storage)
    if pa.types.is_dictionary(kind):
        return _plain_values(column.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return _plain_values(pc.run_end_decode(column))
    if pa.types.is_duration(kind):
        return column.cast(pa.int64())
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if pa.types.is_decimal(kind):
        return column.cast(pa.string())
    if pa.types.is_fixed_size_binary(kind):
        return column.cast(pa.binary()).cast(pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return column.cast(pa.large_string())
    if _is_list(kind):
        return column
    if pa.types.is_nested(kind):
        raise TypeError("nested")
    return column


def _reason(column: pa.Array) -> str | None:
    """Why a column cannot be read; None if it can."""
    kind = column.type.storage_type if isinstance(column.type, pa.BaseExtensionType) else column.type
    if pa.types.is_nested(kind) and not _is_list(kind):
        return f"holds {_kind_of(kind)}; flatten it to values or lists of them to use it"
    try:
        text_column(column)
    except ERRORS:
        return f"holds {_kind_of(kind)} that cannot be read as text"
    return None


def _kind_of(kind: pa.DataType) -> str:
    if pa.types.is_map(kind) or pa.types.is_struct(kind):
        return "records"
    if pa.types.is_nested(kind):
        return "lists of lists or records"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return "bytes that are not UTF-8 text"
    return f"values of type {kind}"


def _is_list(kind: pa.DataType) -> bool:
    """Whether cells are lists of scalar values."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and not pa.types.is_map(kind) and not pa.types.is_nested(kind.value_type)


def _schema(path: Path, kind: Stored) -> tuple[pa.Schema, int]:
    if kind == "parquet":
        metadata = pq.read_metadata(path)
        return pq.read_schema(path), metadata.num_rows
    if kind == "orc":
        file = orc.ORCFile(path)
        return file.schema, file.nrows
    with pa.OSFile(str(path)) as raw, pa.ipc.open_file(raw) as file:
        return file.schema, 1 if file.num_record_batches else 0


def _batches(
    path: Path, kind: Stored, places: Sequence[int], start_row: int, block_rows: int
) -> Iterator[tuple[pa.RecordBatch, float]]:
    done = 0
    for batch, total, fresh in _all_batches(path, kind, list(places), start_row, block_rows):
        done = fresh if fresh is not None else done
        skipped = min(batch.num_rows, max(0, start_row - done))
        done += batch.num_rows
        yield batch.slice(skipped), done / max(1, total)


def _all_batches(
    path: Path, kind: Stored, places: list[int], start_row: int, block_rows: int
) -> Iterator[tuple[pa.RecordBatch, int, int | None]]:
    """Batches, the total number of rows or batches, and the rows before the batch if some were passed over unread."""
    if kind == "parquet":
        with pq.ParquetFile(path) as file:
            done, first, total = 0, 0, file.metadata.num_rows
            while first < file.num_row_groups and done + file.metadata.row_group(first).num_rows <= start_row:
                done, first = done + file.metadata.row_group(first).num_rows, first + 1
            stored = file.schema_arrow.names
            wanted = [stored[place] for place in places]
            before: int | None = done
            for batch in file.iter_batches(batch_size=block_rows, columns=wanted, row_groups=range(first, file.num_row_groups)):
                yield _picked(batch, wanted), total, before
                before = None
    elif kind == "orc":
        file = orc.ORCFile(path)
        wanted = [file.schema.names[place] for place in places]
        for stripe in range(file.nstripes):
            yield _picked(file.read_stripe(stripe, columns=wanted), wanted), file.nrows, None
    else:
        with pa.OSFile(str(path)) as raw, pa.ipc.open_file(raw) as file:
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                yield batch.select(places), batch.num_rows * file.num_record_batches, None


def _picked(batch: Any, names: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([batch.column(name) for name in names], names=names) if names else batch
