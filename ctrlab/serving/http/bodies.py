"""Request bodies as columns of cells: JSON rows, columns, one user with many candidates, and Arrow streams."""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ctrlab.errors import DataError
from ctrlab.serving.http.batching import Cells

ARROW = "application/vnd.apache.arrow.stream"
_FORMS = '{"rows": [...]}, {"columns": {...}} or {"user": {...}, "candidates": [...]}'


@dataclass(frozen=True)
class Limits:
    """What one request may hold. max_bytes: of its body. max_rows: rows or candidates. max_text: characters of a cell."""

    max_bytes: int = 8 << 20
    max_rows: int = 10_000
    max_text: int = 65_536


def cells_of_body(body: bytes, content_type: str, columns: tuple[str, ...], limits: Limits) -> tuple[Cells, int]:
    """(columns of cells, number of rows) of a body; columns that the model does not read are left out.

    Raises:
        DataError: a sentence that says what is wrong.
    """
    if content_type.partition(";")[0].strip() == ARROW:
        cells, rows = _of_arrow(body, columns, limits)
    else:
        cells, rows = _of_json(body, columns, limits)
    if rows > limits.max_rows:
        raise DataError(f"the request has {rows:,} rows, allowed are {limits.max_rows:,}; divide it")
    for name, own in cells.items():
        for row, cell in enumerate(own):
            if type(cell) is str and len(cell) > limits.max_text:
                raise DataError(f"row {row}: {name} has {len(cell):,} characters, allowed are {limits.max_text:,}")
    return cells, rows


def _of_json(body: bytes, columns: tuple[str, ...], limits: Limits) -> tuple[Cells, int]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the body is no JSON ({str(error)[:100]}); send {_FORMS}") from None
    if not isinstance(value, dict):
        raise DataError(f"the body is no JSON object; send {_FORMS}")
    forms = {"rows": _of_rows, "columns": _of_columns, "candidates": _of_candidates}
    given = [name for name in forms if name in value]
    if len(given) != 1:
        raise DataError(f"the body must have one of rows, columns and candidates; send {_FORMS}")
    return forms[given[0]](value, columns)


def _of_rows(value: dict[str, Any], columns: tuple[str, ...]) -> tuple[Cells, int]:
    rows = _objects(value["rows"], "rows")
    return {name: [_cell(row, name, number) for number, row in enumerate(rows)] for name in columns}, len(rows)


def _of_columns(value: dict[str, Any], columns: tuple[str, ...]) -> tuple[Cells, int]:
    given = value["columns"]
    if not isinstance(given, dict):
        raise DataError("columns must be an object of lists, one a column")
    if missing := [name for name in columns if name not in given]:
        raise DataError(f"columns has no {', '.join(missing)}; the model reads {', '.join(columns)}")
    cells = {name: given[name] for name in columns}
    if faulty := [name for name, own in cells.items() if not isinstance(own, list)]:
        raise DataError(f"column {faulty[0]} must be a list of cells")
    lengths = {len(own) for own in cells.values()}
    if len(lengths) > 1:
        shown = ", ".join(f"{name} {len(own)}" for name, own in cells.items())
        raise DataError(f"all columns must be of one length, got {shown}")
    return cells, lengths.pop() if lengths else 0


def _of_candidates(value: dict[str, Any], columns: tuple[str, ...]) -> tuple[Cells, int]:
    """The user's cells stand for every candidate; a candidate's own cell goes before them."""
    user = value.get("user", {})
    if not isinstance(user, dict):
        raise DataError("user must be an object of cells, one a column")
    rows = _objects(value["candidates"], "candidates")
    return {
        name: [row[name] if name in row else _cell(user, name, number) for number, row in enumerate(rows)] for name in columns
    }, len(rows)


def _objects(rows: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(rows, list):
        raise DataError(f"{what} must be a list of objects")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{what} must be a list of objects; number {number} is none")
    return rows


def _cell(row: dict[str, Any], name: str, number: int) -> Any:
    try:
        return row[name]
    except KeyError:
        raise DataError(f"row {number} has no {name}; give null where it is missing") from None


def _of_arrow(body: bytes, columns: tuple[str, ...], limits: Limits) -> tuple[Cells, int]:
    try:
        with pa.ipc.open_stream(body) as stream:
            if missing := [name for name in columns if name not in stream.schema.names]:
                raise DataError(f"the Arrow stream has no column {', '.join(missing)}; the model reads {', '.join(columns)}")
            batches, rows = [], 0
            for batch in stream:
                batches.append(batch.select(list(columns)))
                rows += len(batch)
                if rows > limits.max_rows:
                    break
            cells = {name: [cell for batch in batches for cell in batch[name].to_pylist()] for name in columns}
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"the body is no Arrow stream ({str(error)[:100]})") from None
    return cells, rows
