"""The raw columns that a bundle reads: their types as inputs of its ONNX file, and encoded rows as such inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.encoder import EncodedBlock, FieldEncoder
from ctrlab.data.encoding.fields import Field, ListField, TextField
from ctrlab.data.encoding.fields.buckets import BucketField, ClockField, CriteoField
from ctrlab.data.encoding.fields.numbers import NumberField, QuantileField
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID
from ctrlab.data.tables.timestamps import parse_timestamps

Kind = Literal["text", "number", "time", "list"]
Feeds = dict[str, NDArray[Any]]

#: What each kind of column is, as an input of the ONNX file.
MEANINGS: dict[Kind, str] = {
    "text": "string (rows,), without blanks at its ends; an empty text is missing",
    "number": "double (rows,); NaN is missing",
    "time": "double (rows,), seconds from 1970-01-01 00:00 to the time as a clock at its place shows it; NaN is missing",
    "list": "string (rows, any length), the elements oldest first; an empty text is no element",
}
_DAY, _HOUR = 86_400, 3_600
#: 1970-01-01 was a Thursday, weekday 3.
FIRST_WEEKDAY = 3


@dataclass(frozen=True)
class Column:
    """A raw column. fields: what is made of it, in the encoder's order."""

    name: str
    kind: Kind
    fields: tuple[Field, ...]

    def to_dict(self) -> dict[str, str]:
        """As the bundle's schema shows it."""
        return {"name": self.name, "kind": self.kind, "input": MEANINGS[self.kind]}


def columns_of(encoder: FieldEncoder, *, lists: bool) -> list[Column]:
    """The raw columns of an encoder, each once.

    Args:
        lists: whether the model reads lists; their columns are no inputs otherwise.
    """
    by_name: dict[str, list[Field]] = {}
    for field in encoder.fields:
        if lists or not isinstance(field, ListField):
            by_name.setdefault(field.column, []).append(field)
    return [Column(name, _kind_of(fields[0]), tuple(fields)) for name, fields in by_name.items()]


def _kind_of(field: Field) -> Kind:
    if isinstance(field, ListField):
        return "list"
    if isinstance(field, TextField):
        return "text"
    return "time" if isinstance(field, ClockField) else "number"


def inputs_of_texts(columns: Sequence[Column], texts: pl.DataFrame) -> Feeds:
    """Rows of String columns as inputs of the ONNX file."""
    return {column.name: _input_of_texts(column, texts[column.name]) for column in columns}


def _input_of_texts(column: Column, texts: pl.Series) -> NDArray[Any]:
    field = column.fields[0]
    if isinstance(field, TextField):
        stripped = texts.str.strip_chars(" \t\r\n\v\f\xa0") if field.rules.trim else texts
        return np.array(stripped.fill_null("").to_list(), object)
    if isinstance(field, ClockField):
        times = parse_timestamps(texts, field.timestamp_format or "")
        return times.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64).fill_null(float("nan")).to_numpy() / 1e6
    if isinstance(field, ListField):
        rows = [list(row or []) for row in field.notation.split(texts).to_list()]
        width = max((len(row) for row in rows), default=1) or 1
        return np.array([[*row, *[""] * (width - len(row))] for row in rows], object).reshape(len(rows), width)
    from ctrlab.data.tables.numbers import read_numbers

    return read_numbers(texts, field.rules)[0]


def inputs_of_rows(columns: Sequence[Column], encoder: FieldEncoder, rows: EncodedBlock) -> Feeds:
    """Raw values that are encoded as these rows are, as inputs of the ONNX file.

    A value out of vocabulary is one that no training row had; where a field has none, that of id 0 is another value.
    """
    of_fields: dict[str, NDArray[Any]] = {field.name: rows.ids[:, place] for place, field in enumerate(encoder.id_fields)}
    of_fields |= {field.name: rows.values[:, place] for place, field in enumerate(encoder.value_fields)}
    start = 0
    for field in encoder.list_fields:
        of_fields[field.name] = rows.lists[:, start : start + field.width]
        start += field.width
    return {column.name: _input_of_ids(column, of_fields) for column in columns}


def _input_of_ids(column: Column, encoded: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    field = column.fields[0]
    own = encoded[field.name]
    if isinstance(field, (TextField, ListField)):
        texts = np.array([_unseen(field), "", *field.vocabulary.to_list()], object)
        found: NDArray[Any] = texts[own]
        return found
    if isinstance(field, NumberField):
        numbers = own.astype(np.float64) * field.std + field.mean
        return np.sign(numbers) * np.expm1(np.abs(numbers)) if field.log else numbers
    if isinstance(field, ClockField):
        return _seconds({one.unit: _buckets_of(one, encoded[one.name]) for one in column.fields if isinstance(one, ClockField)})
    if isinstance(field, QuantileField):
        # The right border belongs to a bucket; the last one has none.
        last = field.borders[-1] + max(1.0, abs(field.borders[-1])) if len(field.borders) else 0.0
        by_id: NDArray[Any] = np.concatenate([[np.nan, np.nan], field.borders, [last]])
        return np.asarray(by_id[own])
    assert isinstance(field, CriteoField)
    buckets = _buckets_of(field, own)
    large = np.exp(np.sqrt(np.maximum(buckets - field.SMALL, 0) + 0.5))
    return np.where(np.isnan(buckets), np.nan, np.where(buckets < field.SMALL, buckets - (field.SMALL - 3), large))


def _buckets_of(field: BucketField, ids: NDArray[Any]) -> NDArray[np.float64]:
    """The bucket of each id; NaN where missing, one that training did not have where out of vocabulary."""
    others = np.setdiff1d(
        np.arange(field.num_buckets if not isinstance(field, ClockField) else _CLOCK[field.unit]), field.buckets
    )
    table = np.empty(field.field_dim)
    table[OUT_OF_VOCABULARY_ID] = others[0] if len(others) else 0
    table[MISSING_ID] = np.nan
    table[MISSING_ID + 1 :] = field.buckets
    found: NDArray[np.float64] = table[ids]
    return found


_CLOCK = {"hour": 24, "weekday": 7}


def _seconds(buckets: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """A time with this hour and weekday, in 2020."""
    hour, weekday = (buckets.get(unit, np.zeros(1)) for unit in ("hour", "weekday"))
    day = 18_263 + (weekday - FIRST_WEEKDAY - 18_263) % 7  # 2020-01-02
    return np.asarray(day * _DAY + hour * _HOUR)


def _unseen(field: TextField | ListField) -> str:
    """A text that is not in the vocabulary."""
    text = "a value that training did not have"
    while (field.vocabulary == text).any():
        text += "."
    return text


def joined(parts: Sequence[Feeds]) -> Feeds:
    """Inputs of several requests as those of one; lists are filled up to the longest."""
    return {name: _joined([part[name] for part in parts]) for name in parts[0]}


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if parts[0].ndim == 1:
        return np.concatenate(parts)
    width = max(part.shape[1] for part in parts)
    filled = [np.concatenate([part, np.full((len(part), width - part.shape[1]), "", object)], axis=1) for part in parts]
    return np.concatenate(filled)
