"""Fields: how each raw column is parsed, fitted and encoded."""

from collections.abc import Callable
from typing import Any

import polars as pl

from ctrlab.data.configs import ColumnConfig
from ctrlab.data.encoding.fields.base import NUM_RESERVED_IDS, Field, Mask, NumericField, ParsedCells, ParsedColumn
from ctrlab.data.encoding.fields.buckets import ClockField, CriteoField
from ctrlab.data.encoding.fields.lists import ListField
from ctrlab.data.encoding.fields.numbers import NumberField, QuantileField, read_numbers
from ctrlab.data.encoding.fields.text import TextField

__all__ = [
    "NUM_RESERVED_IDS", "Field", "ListField", "Mask", "NumericField", "ParsedCells", "ParsedColumn", "TextField", "field_state",
    "make_fields", "read_numbers", "restore_field",
]  # fmt: skip

_KINDS: dict[str, type[Field]] = {
    "text": TextField,
    "criteo": CriteoField,
    "clock": ClockField,
    "number": NumberField,
    "quantile": QuantileField,
    "list": ListField,
}


def make_fields(column: ColumnConfig) -> list[Field]:
    """The unfitted fields of a raw column: none, one, or two (hour and weekday)."""
    return _MAKERS[column.role](column)


def field_state(field: Field) -> dict[str, Any]:
    """The state for `restore_field`, as JSON."""
    return {"kind": next(kind for kind, cls in _KINDS.items() if type(field) is cls), **field.state()}


def restore_field(state: dict[str, Any], vocabulary: pl.Series) -> Field:
    """The inverse of `field_state`; `vocabulary` is used by fields of texts only."""
    field = _KINDS[state["kind"]].restore(state)
    if isinstance(field, (TextField, ListField)):
        field.set_vocabulary(vocabulary)
    return field


def _number_fields(column: ColumnConfig) -> list[Field]:
    if column.transform == "criteo":
        return [CriteoField(column.name, column.name, column.min_count)]
    if column.transform == "quantile":
        return [QuantileField(column.name, column.name, column.num_buckets)]
    return [NumberField(column.name, column.name, log=column.transform == "log")]


def _list_fields(column: ColumnConfig) -> list[Field]:
    return [ListField(column.name, column.name, column.min_count, column.separator, column.max_length, column.shares)]


def _clock_fields(column: ColumnConfig) -> list[Field]:
    units = ("hour", "weekday")
    return [ClockField(f"{column.name}_{unit}", column.name, column.min_count, unit, column.timestamp_format) for unit in units]


_MAKERS: dict[str, Callable[[ColumnConfig], list[Field]]] = {
    "categorical": lambda column: [TextField(column.name, column.name, column.min_count)],
    "numeric": _number_fields,
    "timestamp": _clock_fields,
    "list": _list_fields,
    "label": lambda column: [],
    "ignore": lambda column: [],
}
