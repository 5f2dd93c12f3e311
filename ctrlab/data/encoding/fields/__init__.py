"""Fields: how each raw column is parsed, fitted and encoded."""

from collections.abc import Callable
from typing import Any

import polars as pl

from ctrlab.data.configs import ColumnConfig
from ctrlab.data.encoding.fields.base import NUM_RESERVED_IDS, Field, Mask, NumericField, ParsedCells, ParsedColumn
from ctrlab.data.encoding.fields.buckets import ClockField, CriteoField
from ctrlab.data.encoding.fields.lists import ListField
from ctrlab.data.encoding.fields.numbers import NumberField, QuantileField
from ctrlab.data.encoding.fields.text import TextField
from ctrlab.data.tables.cells import CellRules
from ctrlab.data.tables.list_cells import Notation

__all__ = [
    "NUM_RESERVED_IDS", "Field", "ListField", "Mask", "NumericField", "ParsedCells", "ParsedColumn", "TextField", "field_state",
    "make_fields", "restore_field",
]  # fmt: skip

_KINDS: dict[str, type[Field]] = {
    "text": TextField,
    "criteo": CriteoField,
    "clock": ClockField,
    "number": NumberField,
    "quantile": QuantileField,
    "list": ListField,
}


def make_fields(column: ColumnConfig, missing_words: tuple[str, ...] = ()) -> list[Field]:
    """The unfitted fields of a raw column: none, one, or two (hour and weekday).

    Args:
        missing_words: words of the source that mean "missing", besides the usual ones.
    """
    return _MAKERS[column.role](column, CellRules.of(column, missing_words))


def field_state(field: Field) -> dict[str, Any]:
    """The state for `restore_field`, as JSON."""
    return {"kind": next(kind for kind, cls in _KINDS.items() if type(field) is cls), **field.state()}


def restore_field(state: dict[str, Any], vocabulary: pl.Series) -> Field:
    """The inverse of `field_state`; `vocabulary` is used by fields of texts only."""
    field = _KINDS[state["kind"]].restore(state)
    if isinstance(field, (TextField, ListField)):
        field.set_vocabulary(vocabulary)
    return field


def _number_fields(column: ColumnConfig, rules: CellRules) -> list[Field]:
    if column.transform == "criteo":
        return [CriteoField(column.name, column.name, column.min_count, rules)]
    if column.transform == "quantile":
        return [QuantileField(column.name, column.name, column.num_buckets, rules)]
    return [NumberField(column.name, column.name, column.transform == "log", rules)]


def _list_fields(column: ColumnConfig, rules: CellRules) -> list[Field]:
    notation = Notation(column.separator, column.list_format)
    return [ListField(column.name, column.name, column.min_count, notation, column.max_length, column.shares, rules)]


def _clock_fields(column: ColumnConfig, rules: CellRules) -> list[Field]:
    own = (column.timestamp_format, rules)
    return [ClockField(f"{column.name}_{unit}", column.name, column.min_count, unit, *own) for unit in ("hour", "weekday")]


_MAKERS: dict[str, Callable[[ColumnConfig, CellRules], list[Field]]] = {
    "categorical": lambda column, rules: [TextField(column.name, column.name, column.min_count, rules)],
    "numeric": _number_fields,
    "timestamp": _clock_fields,
    "list": _list_fields,
    "label": lambda column, rules: [],
    "ignore": lambda column, rules: [],
}
