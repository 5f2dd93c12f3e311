"""Columns that become a small set of whole numbers: hours, weekdays, Criteo's buckets."""

from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.fields.base import (
    MISSING_CODE,
    MISSING_WORDS,
    NUM_RESERVED_IDS,
    Cells,
    Field,
    Ids,
    Numbers,
    NumericField,
    Reading,
    shifted,
)  # fmt: skip
from ctrlab.data.encoding.fields.numbers import read_numbers
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID
from ctrlab.data.tables.timestamps import find_format, parse_timestamps
from ctrlab.errors import DataError


class KeyField(Field):
    """A categorical field over a small set of whole numbers: hours, weekdays, Criteo buckets.

    num_keys: keys are 0..num_keys-1.

    What is kept of a cell is its key + 1, 0 where it is missing.
    """

    gives = "ids"
    kept_dtype = np.int16
    num_keys: ClassVar[int]

    def __init__(self, name: str, column: str, min_count: int) -> None:
        super().__init__(name, column)
        self.min_count = min_count
        self.keys: list[int] = []
        self._ids: Ids = np.empty(0, np.int32)

    @property
    def field_dim(self) -> int:
        return NUM_RESERVED_IDS + len(self.keys)

    def fit(self, cells: Cells) -> None:
        counts = np.zeros(self.num_keys + 1, np.int64)
        for codes, train in cells.blocks():
            counts += np.bincount(codes[train], minlength=self.num_keys + 1)
        counts = counts[1:]
        by_count = np.argsort(-counts, kind="stable")
        self._settle([int(key) for key in by_count if counts[key] >= max(1, self.min_count)])

    def encode(self, kept: NDArray[np.int16]) -> Ids:
        return self._ids[kept]

    def state(self) -> dict[str, Any]:
        return {"name": self.name, "column": self.column, "min_count": self.min_count, "keys": self.keys}

    def _settle(self, keys: list[int]) -> None:
        self.keys = keys
        self._ids = np.full(self.num_keys + 1, OUT_OF_VOCABULARY_ID, np.int32)
        self._ids[MISSING_CODE] = MISSING_ID
        self._ids[np.array(keys, np.int64) + 1] = np.arange(NUM_RESERVED_IDS, NUM_RESERVED_IDS + len(keys))


class CriteoField(KeyField, NumericField):
    """floor(log(x)^2) for x > 2; smaller numbers keep a bucket of their own each, down to -60 and below."""

    _SMALL = 63
    num_keys = _SMALL + 2048

    def read(self, texts: pl.Series) -> Reading:
        numbers, unreadable = read_numbers(texts)
        return Reading(self.keep(numbers), unreadable)

    def keep(self, numbers: Numbers) -> NDArray[np.int16]:
        with np.errstate(invalid="ignore", divide="ignore"):
            large = np.floor(np.log(np.maximum(numbers, 2.0)) ** 2) + self._SMALL
            small = np.maximum(np.floor(numbers) + (self._SMALL - 3), 0.0)
        keys = np.minimum(np.where(numbers > 2, large, small), self.num_keys - 1)
        return np.where(np.isnan(keys), MISSING_CODE, keys + 1).astype(np.int16)

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        field = cls(state["name"], state["column"], state["min_count"])
        field._settle(state["keys"])
        return field


class ClockField(KeyField):
    """The hour (0..23) or the weekday (0 = Monday) of a point in time."""

    reads = "texts"
    num_keys = 24

    def __init__(self, name: str, column: str, min_count: int, unit: str, timestamp_format: str | None) -> None:
        super().__init__(name, column, min_count)
        self.unit, self.timestamp_format = unit, timestamp_format

    def read(self, texts: pl.Series) -> Reading:
        times = parse_timestamps(texts, self._format(texts))
        keys = times.dt.hour() if self.unit == "hour" else times.dt.weekday() - 1
        empty = texts.is_null() | texts.str.to_lowercase().is_in(MISSING_WORDS)
        return Reading(shifted(keys, 1, MISSING_CODE).astype(np.int16), int((times.is_null() & ~empty).sum()))

    def _format(self, texts: pl.Series) -> str:
        if self.timestamp_format is None:
            self.timestamp_format = find_format(texts, self.column) or find_format(texts, "time")
        if self.timestamp_format is None:
            values = ", ".join(texts.drop_nulls().head(2))
            raise DataError(
                f"column {self.column!r} is to be a timestamp and its values ({values}) are in no known format; "
                "set its timestamp format, such as %d/%m/%Y %H:%M, or give it another role"
            )
        return self.timestamp_format

    def state(self) -> dict[str, Any]:
        return {**super().state(), "unit": self.unit, "timestamp_format": self.timestamp_format}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        field = cls(state["name"], state["column"], state["min_count"], state["unit"], state["timestamp_format"])
        field._settle(state["keys"])
        return field
