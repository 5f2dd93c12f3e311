"""Rows of JSON as inputs of a bundle's ONNX file: each cell is checked, and read as the encoder would read it."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.fields.buckets import ClockField
from ctrlab.data.tables.cells import BLANKS, CellRules, canonical_text
from ctrlab.data.tables.numbers import read_numbers
from ctrlab.data.tables.timestamps import parse_timestamps
from ctrlab.errors import DataError
from ctrlab.serving.bundle.columns import Column, Feeds

#: Numbers that need no reading of other notations, currencies or signs.
_PLAIN = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$")
_ALLOWED = {
    "text": "a text, a number, true, false or null", "number": "a number or null", "time": "a time as in training, or null",
    "list": "a list of texts and numbers, a text as in training, or null",
}  # fmt: skip


def inputs_of_cells(columns: Sequence[Column], cells: Mapping[str, Sequence[Any]]) -> Feeds:
    """Columns of JSON values, all of one length, as inputs of the ONNX file.

    Raises:
        DataError: a column is missing, or a cell is none of its column; with the column and the number of the row, from 0.
    """
    if missing := [column.name for column in columns if column.name not in cells]:
        raise DataError(f"the rows have no column {', '.join(missing)}; they need {', '.join(column.name for column in columns)}")
    return {column.name: _READERS[column.kind](column, cells[column.name]) for column in columns}


def _texts(column: Column, cells: Sequence[Any]) -> NDArray[Any]:
    trim = column.fields[0].rules.trim
    if trim and set(map(type, cells)) == {str}:  # the usual case, without a call a cell
        return np.array([cell.strip(BLANKS) for cell in cells], object)
    return np.array([_text(column, cell, row, trim) for row, cell in enumerate(cells)], object)


def _text(column: Column, cell: Any, row: int, trim: bool) -> str:
    if type(cell) is str:
        return cell.strip(BLANKS) if trim else cell
    if cell is None or (type(cell) is float and not math.isfinite(cell)):
        return ""
    if type(cell) is bool:
        return "true" if cell else "false"
    if type(cell) is int:
        return str(cell)
    if type(cell) is float:
        return str(int(cell)) if cell == int(cell) and abs(cell) < 1e16 else repr(cell)
    raise _fault(column, cell, row)


def _numbers(column: Column, cells: Sequence[Any]) -> NDArray[Any]:
    if set(map(type, cells)) <= {float, int}:
        try:
            return np.array(cells, np.float64)
        except OverflowError:
            pass  # a whole number larger than any double: found below
    known: dict[Any, float] = {}  # a user's cell stands in all rows of a request
    numbers = np.empty(len(cells))
    for row, cell in enumerate(cells):
        key = (type(cell), cell) if type(cell) in (str, float, int) else None
        number = known.get(key)
        if number is None:
            number = _number(column, cell, row)
            if key is not None:
                known[key] = number
        numbers[row] = number
    return numbers


def _number(column: Column, cell: Any, row: int) -> float:
    if cell is None:
        return math.nan
    try:
        if type(cell) in (float, int):
            return float(cell)
        if type(cell) is str:
            return _written_number(column.fields[0].rules, cell)
    except (OverflowError, ValueError):
        pass
    raise _fault(column, cell, row)


def _written_number(rules: CellRules, cell: str) -> float:
    """A number in the notation of its column; ValueError where it is none."""
    if cell == "" or canonical_text(cell, rules) is None:
        return math.nan
    if rules.number_format == "1234.5" and _PLAIN.match(cell):
        number = float(cell)
        return number if math.isfinite(number) else math.nan
    numbers, unreadable = read_numbers(pl.Series([cell], dtype=pl.String), rules)
    if unreadable:
        raise ValueError
    return float(numbers[0])


def _times(column: Column, cells: Sequence[Any]) -> NDArray[Any]:
    own = column.fields[0]
    assert isinstance(own, ClockField)
    texts = [_written_time(column, cell, row) for row, cell in enumerate(cells)]
    times = parse_timestamps(pl.Series(texts, dtype=pl.String), own.timestamp_format or "")
    seconds: NDArray[np.float64] = times.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64).fill_null(math.nan).to_numpy()
    for row in np.flatnonzero(np.isnan(seconds)).tolist():
        if texts[row] is not None:
            raise _fault(column, cells[row], row)
    return seconds / 1e6


def _written_time(column: Column, cell: Any, row: int) -> str | None:
    if cell is None or type(cell) is str:
        return None if cell is None else canonical_text(cell, column.fields[0].rules)
    if type(cell) in (int, float) and math.isfinite(cell):
        return _text(column, cell, row, trim=True)
    raise _fault(column, cell, row)


def _lists(column: Column, cells: Sequence[Any]) -> NDArray[Any]:
    rows = [_elements(column, cell, row) for row, cell in enumerate(cells)]
    width = max((len(row) for row in rows), default=0) or 1
    return np.array([[*row, *[""] * (width - len(row))] for row in rows], object).reshape(len(rows), width)


def _elements(column: Column, cell: Any, row: int) -> list[str]:
    from ctrlab.data.encoding.fields import ListField

    own = column.fields[0]
    assert isinstance(own, ListField)
    if cell is None:
        return []
    if type(cell) is list:
        return [_text(column, element, row, trim=True) for element in cell]
    if type(cell) is str:
        written = own.notation.split(pl.Series([cell], dtype=pl.String)).to_list()[0] or []
        return [canonical_text(element, own.rules, unquote=True) or "" for element in written]
    raise _fault(column, cell, row)


def _fault(column: Column, cell: Any, row: int) -> DataError:
    shown = repr(cell)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
    return DataError(f"row {row}: {column.name} is {shown}, but must be {_ALLOWED[column.kind]}")


_SHOWN = 40
_READERS = {"text": _texts, "number": _numbers, "time": _times, "list": _lists}
