"""Categorical fields over a small fixed set of integers: hours, weekdays, Criteo buckets."""

from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.fields.base import (
    MISSING_CODE,
    NUM_RESERVED_IDS,
    Field,
    Ids,
    Numbers,
    NumericField,
    ParsedCells,
    ParsedColumn,
    shifted,
)  # fmt: skip
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID
from ctrlab.data.tables.cells import PLAIN_CELLS, CellRules, canonical, is_missing
from ctrlab.data.tables.timestamps import find_format, parse_timestamps
from ctrlab.errors import DataError


class BucketField(Field):
    """A categorical field over the integers 0..num_buckets-1.

    A parsed cell is its bucket + 1, or 0 where the cell is missing. Ids are assigned by falling count in the training rows, equal
    counts by the smaller bucket.

    buckets: in the order of their ids. ids: int32, the id of each parsed cell.
    """

    output = "ids"
    cell_dtype = np.int16
    num_buckets: ClassVar[int]

    def __init__(self, name: str, column: str, min_count: int, rules: CellRules = PLAIN_CELLS) -> None:
        super().__init__(name, column, rules)
        self.min_count = min_count
        self.buckets: list[int] = []
        self.ids: Ids = np.empty(0, np.int32)

    @property
    def field_dim(self) -> int:
        return NUM_RESERVED_IDS + len(self.buckets)

    def fit(self, cells: ParsedCells) -> None:
        counts = np.zeros(self.num_buckets + 1, np.int64)
        for codes, train in cells.blocks():
            counts += np.bincount(codes[train], minlength=self.num_buckets + 1)
        counts = counts[1:]
        by_count = np.argsort(-counts, kind="stable")
        self._set_buckets([int(bucket) for bucket in by_count if counts[bucket] >= max(1, self.min_count)])

    def encode(self, cells: NDArray[np.int16]) -> Ids:
        return self.ids[cells]

    def state(self) -> dict[str, Any]:
        own = {"min_count": self.min_count, "keys": self.buckets}
        return {"name": self.name, "column": self.column, **own, **self.rules.state()}

    def _set_buckets(self, buckets: list[int]) -> None:
        self.buckets = buckets
        self.ids = np.full(self.num_buckets + 1, OUT_OF_VOCABULARY_ID, np.int32)
        self.ids[MISSING_CODE] = MISSING_ID
        self.ids[np.array(buckets, np.int64) + 1] = np.arange(NUM_RESERVED_IDS, NUM_RESERVED_IDS + len(buckets))


class CriteoField(NumericField, BucketField):
    """Bucket floor(log(x)^2) for x > 2; each smaller integer has its own bucket, down to -60 (one bucket for all below)."""

    #: Buckets of the numbers up to 2.
    SMALL = 63
    num_buckets = SMALL + 2048

    def __init__(self, name: str, column: str, min_count: int, rules: CellRules = PLAIN_CELLS) -> None:
        NumericField.__init__(self, name, column, rules)
        BucketField.__init__(self, name, column, min_count, rules)

    def parse_numbers(self, numbers: Numbers) -> NDArray[np.int16]:
        with np.errstate(invalid="ignore", divide="ignore"):
            large = np.floor(np.log(np.maximum(numbers, 2.0)) ** 2) + self.SMALL
            small = np.maximum(np.floor(numbers) + (self.SMALL - 3), 0.0)
        buckets = np.minimum(np.where(numbers > 2, large, small), self.num_buckets - 1)
        return np.where(np.isnan(buckets), MISSING_CODE, buckets + 1).astype(np.int16)

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        field = cls(state["name"], state["column"], state["min_count"], CellRules.restore(state))
        field._set_buckets(state["keys"])
        return field


class ClockField(BucketField):
    """The hour (0..23) or the weekday (0 = Monday) of a timestamp."""

    input = "texts"
    num_buckets = 24

    def __init__(
        self, name: str, column: str, min_count: int, unit: str, timestamp_format: str | None, rules: CellRules = PLAIN_CELLS
    ) -> None:
        super().__init__(name, column, min_count, rules)
        self.unit, self.timestamp_format = unit, timestamp_format

    def parse(self, texts: pl.Series) -> ParsedColumn:
        times = parse_timestamps(texts, self._format(texts))
        buckets = times.dt.hour() if self.unit == "hour" else times.dt.weekday() - 1
        unread = texts.filter(times.is_null() & texts.is_not_null())
        unreadable = len(unread) - int(is_missing(unread, self.rules).sum())
        return ParsedColumn(shifted(buckets, 1, MISSING_CODE).astype(np.int16), unreadable)

    def _format(self, texts: pl.Series) -> str:
        if self.timestamp_format is None:
            cells = canonical(texts, self.rules)
            self.timestamp_format = find_format(cells, self.column) or find_format(cells, "time")
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
        own = (state["min_count"], state["unit"], state["timestamp_format"])
        field = cls(state["name"], state["column"], *own, CellRules.restore(state))
        field._set_buckets(state["keys"])
        return field
