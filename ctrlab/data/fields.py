"""From a raw column to a field: one class a kind of field, all with the same life.

    observe(texts, train) -> codes     first sight of a block: provisional codes, to be kept until fitting is over;
                                       only rows where `train` is true may shape the field
    finish()                           the vocabulary or statistics are settled
    finalize(codes) -> ids | values    provisional codes to what a model reads
    transform(texts) -> ids | values   rows seen later, in one step

The text of a cell is hashed and compared once, in `observe`; `finalize` is arithmetic on integers. That makes reading the file
once enough, although vocabularies are ordered by counts that are known only at its end.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.configs import ColumnConfig
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID
from ctrlab.data.timestamps import find_format, parse_timestamps
from ctrlab.errors import DataError

#: Ids before the vocabulary's: out of vocabulary, missing.
NUM_RESERVED_IDS = max(OUT_OF_VOCABULARY_ID, MISSING_ID) + 1
#: Training values kept to find quantiles; up to this many the quantiles are exact.
QUANTILE_SAMPLE_ROWS = 1 << 20
#: A numeric or time column with a larger share of unreadable cells is refused.
MAX_UNREADABLE_SHARE = 0.01
#: Texts that say "no value here" in a numeric or time column, in lower case.
_MISSING_WORDS = ("", "na", "n/a", "nan", "null", "none", "\\n", "?", "-", "inf", "-inf", "+inf", "infinity", "-infinity")
_MISSING_CODE = 0

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]


class Field(Protocol):
    """What the encoder asks of every kind of field; see the module's docstring."""

    name: str
    column: str
    kind: ClassVar[str]
    #: Whether the result is ids (int32) or values (float32), and whether provisional codes are int32 or float64.
    gives_ids: ClassVar[bool]
    codes_are_ids: ClassVar[bool]
    unreadable: int

    @property
    def field_dim(self) -> int: ...
    def observe(self, texts: pl.Series, train: Mask) -> NDArray[Any]: ...
    def finish(self) -> None: ...
    def finalize(self, codes: NDArray[Any]) -> NDArray[Any]: ...
    def transform(self, texts: pl.Series) -> NDArray[Any]: ...
    def state(self) -> dict[str, Any]: ...


class TextField:
    """A categorical field: ids by falling count in the training rows, equal counts in the order of the text."""

    kind = "categorical"
    gives_ids = codes_are_ids = True
    unreadable = 0

    def __init__(self, name: str, column: str, min_count: int) -> None:
        self.name, self.column, self.min_count = name, column, min_count
        self.vocabulary = pl.Series(name, [], dtype=pl.String)
        self._dtype = pl.Categorical(pl.Categories.random())
        # polars forgets the texts of a Categories object that no series uses.
        self._keep_alive = pl.Series([], dtype=self._dtype)
        self._counts = np.zeros(1024, np.int64)
        self._ids: Ids = np.empty(0, np.int32)

    @property
    def field_dim(self) -> int:
        return NUM_RESERVED_IDS + len(self.vocabulary)

    def observe(self, texts: pl.Series, train: Mask) -> Ids:
        array: Ids = _shifted(texts.cast(self._dtype).to_physical(), 1, _MISSING_CODE)
        largest = int(array.max(initial=0))
        if largest >= len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(2 * largest + 1 - len(self._counts), np.int64)])
        np.add.at(self._counts, array[train], 1)
        return array

    def finish(self) -> None:
        texts = self._dtype.categories.to_series()
        table = pl.DataFrame({"text": texts, "code": np.arange(1, len(texts) + 1), "count": self._counts[1 : len(texts) + 1]})
        kept = table.filter(pl.col("count") >= self.min_count).sort(["count", "text"], descending=[True, False])
        self._ids = np.full(len(texts) + 1, OUT_OF_VOCABULARY_ID, np.int32)
        self._ids[_MISSING_CODE] = MISSING_ID
        self._ids[kept["code"].to_numpy()] = np.arange(NUM_RESERVED_IDS, NUM_RESERVED_IDS + len(kept))
        self._settle(kept["text"])

    def finalize(self, codes: Ids) -> Ids:
        return self._ids[codes]

    def transform(self, texts: pl.Series) -> Ids:
        ids = _shifted(texts.cast(self._enum, strict=False).to_physical(), NUM_RESERVED_IDS, OUT_OF_VOCABULARY_ID)
        return np.where(texts.is_null().to_numpy(), np.int32(MISSING_ID), ids)

    def state(self) -> dict[str, Any]:
        return {"kind": "text", "name": self.name, "column": self.column, "min_count": self.min_count}

    @classmethod
    def restore(cls, state: dict[str, Any], vocabulary: pl.Series) -> "TextField":
        field = cls(state["name"], state["column"], state["min_count"])
        field._settle(vocabulary)
        return field

    def _settle(self, vocabulary: pl.Series) -> None:
        self.vocabulary = vocabulary.alias(self.name)
        self._enum = pl.Enum(vocabulary)
        # The first-sight dictionary held every text of the file, training row or not; it is not needed again.
        self._keep_alive = pl.Series([], dtype=pl.String)
        self._counts = np.empty(0, np.int64)


class KeyField:
    """A categorical field over a small set of whole numbers: hours, weekdays, Criteo buckets.

    key_of: texts -> (keys 0..num_keys-1 as int32 with -1 for missing, number of unreadable cells).
    """

    kind = "categorical"
    gives_ids = codes_are_ids = True
    num_keys: ClassVar[int]

    def __init__(self, name: str, column: str, min_count: int) -> None:
        self.name, self.column, self.min_count = name, column, min_count
        self.unreadable = 0
        self.keys: list[int] = []
        self._counts = np.zeros(self.num_keys + 1, np.int64)
        self._ids: Ids = np.empty(0, np.int32)

    def keys_of(self, texts: pl.Series) -> tuple[Ids, int]:
        """Keys int32 (n,), -1 for missing; and how many cells were unreadable."""
        raise NotImplementedError

    @property
    def field_dim(self) -> int:
        return NUM_RESERVED_IDS + len(self.keys)

    def observe(self, texts: pl.Series, train: Mask) -> Ids:
        keys, unreadable = self.keys_of(texts)
        self.unreadable += unreadable
        codes = keys + 1
        self._counts += np.bincount(codes[train], minlength=self.num_keys + 1)
        return codes

    def finish(self) -> None:
        counts = self._counts[1:]
        by_count = np.argsort(-counts, kind="stable")
        self._settle([int(key) for key in by_count if counts[key] >= self.min_count])

    def finalize(self, codes: Ids) -> Ids:
        return self._ids[codes]

    def transform(self, texts: pl.Series) -> Ids:
        return self._ids[self.keys_of(texts)[0] + 1]

    def state(self) -> dict[str, Any]:
        return {"name": self.name, "column": self.column, "min_count": self.min_count, "keys": self.keys}

    def _settle(self, keys: list[int]) -> None:
        self.keys = keys
        self._ids = np.full(self.num_keys + 1, OUT_OF_VOCABULARY_ID, np.int32)
        self._ids[_MISSING_CODE] = MISSING_ID
        self._ids[np.array(keys, np.int64) + 1] = np.arange(NUM_RESERVED_IDS, NUM_RESERVED_IDS + len(keys))


class CriteoField(KeyField):
    """floor(log(x)^2) for x > 2; smaller numbers keep a bucket of their own each, down to -60 and below."""

    _SMALL = 63
    num_keys = _SMALL + 2048

    def keys_of(self, texts: pl.Series) -> tuple[Ids, int]:
        numbers, unreadable = read_numbers(texts)
        with np.errstate(invalid="ignore", divide="ignore"):
            large = np.floor(np.log(np.maximum(numbers, 2.0)) ** 2) + self._SMALL
            small = np.maximum(np.floor(numbers) + (self._SMALL - 3), 0.0)
        keys = np.minimum(np.where(numbers > 2, large, small), self.num_keys - 1)
        return np.where(np.isnan(keys), -1, keys).astype(np.int32), unreadable

    def state(self) -> dict[str, Any]:
        return {"kind": "criteo", **super().state()}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "CriteoField":
        field = cls(state["name"], state["column"], state["min_count"])
        field._settle(state["keys"])
        return field


class ClockField(KeyField):
    """The hour (0..23) or the weekday (0 = Monday) of a point in time."""

    num_keys = 24

    def __init__(self, name: str, column: str, min_count: int, unit: str, timestamp_format: str | None) -> None:
        super().__init__(name, column, min_count)
        self.unit, self.timestamp_format = unit, timestamp_format

    def keys_of(self, texts: pl.Series) -> tuple[Ids, int]:
        times = parse_timestamps(texts, self._format(texts))
        keys = times.dt.hour() if self.unit == "hour" else times.dt.weekday() - 1
        empty = texts.is_null() | texts.str.to_lowercase().is_in(_MISSING_WORDS)
        return _shifted(keys, 0, -1), int((times.is_null() & ~empty).sum())

    def _format(self, texts: pl.Series) -> str:
        if self.timestamp_format is None:
            self.timestamp_format = find_format(texts, self.column) or find_format(texts, "time")
        if self.timestamp_format is None:
            raise DataError(
                f"column {self.column!r} is to be a timestamp and its values ({', '.join(texts.drop_nulls().head(2))}) are in no known format; "
                "set its timestamp format, such as %d/%m/%Y %H:%M, or give it another role"
            )
        return self.timestamp_format

    def state(self) -> dict[str, Any]:
        return {"kind": "clock", **super().state(), "unit": self.unit, "timestamp_format": self.timestamp_format}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "ClockField":
        field = cls(state["name"], state["column"], state["min_count"], state["unit"], state["timestamp_format"])
        field._settle(state["keys"])
        return field


class NumberField:
    """A number, standardised over the training rows; with `log`, sign(x) log(1 + |x|) first. A missing one becomes 0, the mean."""

    kind = "numeric"
    gives_ids = codes_are_ids = False
    field_dim = 0

    def __init__(self, name: str, column: str, log: bool) -> None:
        self.name, self.column, self.log = name, column, log
        self.unreadable = 0
        self.mean, self.std = 0.0, 1.0
        self._moments = (0, 0.0, 0.0)  # n, mean, sum of squared deviations

    def observe(self, texts: pl.Series, train: Mask) -> NDArray[np.float64]:
        numbers, unreadable = self._read(texts)
        self.unreadable += unreadable
        seen = numbers[train]
        self._merge(seen[~np.isnan(seen)])
        return numbers

    def finish(self) -> None:
        count, mean, squares = self._moments
        std = math.sqrt(squares / count) if count else 0.0
        # A constant column has no spread to divide by; its values become 0.
        self.mean, self.std = mean, std if std > 1e-12 * abs(mean) and std > 0 else 1.0

    def finalize(self, codes: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.nan_to_num((codes - self.mean) / self.std, nan=0.0).astype(np.float32)

    def transform(self, texts: pl.Series) -> NDArray[np.float32]:
        return self.finalize(self._read(texts)[0])

    def state(self) -> dict[str, Any]:
        return {"kind": "number", "name": self.name, "column": self.column, "log": self.log, "mean": self.mean, "std": self.std}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "NumberField":
        field = cls(state["name"], state["column"], state["log"])
        field.mean, field.std = state["mean"], state["std"]
        return field

    def _read(self, texts: pl.Series) -> tuple[NDArray[np.float64], int]:
        numbers, unreadable = read_numbers(texts)
        return (np.sign(numbers) * np.log1p(np.abs(numbers)) if self.log else numbers), unreadable

    def _merge(self, numbers: NDArray[np.float64]) -> None:
        """Chan's update: exact where sum of squares minus squared mean is not."""
        if not len(numbers):
            return
        n, mean, squares = self._moments
        m, block_mean = len(numbers), float(numbers.mean())
        shift = block_mean - mean
        block_squares = float(((numbers - block_mean) ** 2).sum())
        self._moments = (n + m, mean + shift * m / (n + m), squares + block_squares + shift**2 * n * m / (n + m))


class QuantileField:
    """A number as the bucket it falls into; borders are quantiles of the training rows, so that buckets fill alike."""

    kind = "categorical"
    gives_ids, codes_are_ids = True, False

    def __init__(self, name: str, column: str, num_buckets: int) -> None:
        self.name, self.column, self.num_buckets = name, column, num_buckets
        self.unreadable = 0
        self.borders: NDArray[np.float64] = np.empty(0)
        self._sample: list[NDArray[np.float64]] = []
        self._stride, self._skip, self._kept = 1, 0, 0

    @property
    def field_dim(self) -> int:
        return NUM_RESERVED_IDS + len(self.borders) + 1

    def observe(self, texts: pl.Series, train: Mask) -> NDArray[np.float64]:
        numbers, unreadable = read_numbers(texts)
        self.unreadable += unreadable
        seen = numbers[train]
        self._keep(seen[~np.isnan(seen)])
        return numbers

    def finish(self) -> None:
        seen = np.concatenate(self._sample) if self._sample else np.empty(0)
        inner = np.arange(1, self.num_buckets) / self.num_buckets
        # Equal quantiles (many equal numbers) make one border; the largest number needs no bucket above it.
        borders = np.unique(np.quantile(seen, inner, method="inverted_cdf")) if len(seen) else np.empty(0)
        self.borders = borders[borders < seen.max()] if len(seen) else borders
        self._sample = []

    def finalize(self, codes: NDArray[np.float64]) -> Ids:
        buckets = np.searchsorted(self.borders, codes, side="left") + NUM_RESERVED_IDS
        return np.where(np.isnan(codes), MISSING_ID, buckets).astype(np.int32)

    def transform(self, texts: pl.Series) -> Ids:
        return self.finalize(read_numbers(texts)[0])

    def state(self) -> dict[str, Any]:
        return {
            "kind": "quantile", "name": self.name, "column": self.column,
            "num_buckets": self.num_buckets, "borders": self.borders.tolist(),
        }  # fmt: skip

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "QuantileField":
        field = cls(state["name"], state["column"], state["num_buckets"])
        field.borders = np.array(state["borders"], np.float64)
        return field

    def _keep(self, numbers: NDArray[np.float64]) -> None:
        """Every `_stride`-th number; when too many are kept, every other is dropped and the stride doubles."""
        kept = numbers[self._skip :: self._stride]
        self._skip = (self._skip - len(numbers)) % self._stride
        self._sample.append(kept)
        self._kept += len(kept)
        while self._kept > QUANTILE_SAMPLE_ROWS:
            everything = np.concatenate(self._sample)
            self._skip += self._stride if len(everything) % 2 else 0
            self._sample, self._stride = [everything[::2]], self._stride * 2
            self._kept = len(self._sample[0])


def read_numbers(texts: pl.Series) -> tuple[NDArray[np.float64], int]:
    """Numbers float64 (n,), NaN for an empty, infinite or unreadable cell; and how many cells were unreadable."""
    parsed = texts.cast(pl.Float64, strict=False)
    unreadable = 0
    if parsed.null_count() > texts.null_count():
        words = texts.str.strip_chars()
        parsed = words.cast(pl.Float64, strict=False)
        unreadable = int((parsed.is_null() & words.is_not_null() & ~words.str.to_lowercase().is_in(_MISSING_WORDS)).sum())
    numbers = parsed.fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(numbers), numbers, np.nan), unreadable


def make_fields(column: ColumnConfig) -> list[Field]:
    """The unfitted fields a raw column becomes: none, one, or hour and weekday."""
    return _MAKERS[column.role](column)


def restore_field(state: dict[str, Any], vocabulary: pl.Series) -> Field:
    """The inverse of `Field.state`; `vocabulary` matters to text fields only."""
    if state["kind"] == "text":
        return TextField.restore(state, vocabulary)
    return _RESTORERS[state["kind"]](state)


def _number_fields(column: ColumnConfig) -> list[Field]:
    if column.transform == "criteo":
        return [CriteoField(column.name, column.name, column.min_count)]
    if column.transform == "quantile":
        return [QuantileField(column.name, column.name, column.num_buckets)]
    return [NumberField(column.name, column.name, log=column.transform == "log")]


def _clock_fields(column: ColumnConfig) -> list[Field]:
    return [
        ClockField(f"{column.name}_{unit}", column.name, column.min_count, unit, column.timestamp_format) for unit in ("hour", "weekday")
    ]


_MAKERS: dict[str, Callable[[ColumnConfig], list[Field]]] = {
    "categorical": lambda column: [TextField(column.name, column.name, column.min_count)],
    "numeric": _number_fields,
    "timestamp": _clock_fields,
    "label": lambda column: [],
    "ignore": lambda column: [],
}
_RESTORERS: dict[str, Callable[[dict[str, Any]], Field]] = {
    "criteo": CriteoField.restore,
    "clock": ClockField.restore,
    "number": NumberField.restore,
    "quantile": QuantileField.restore,
}


def _shifted(codes: pl.Series, by: int, missing: int) -> Ids:
    """`codes + by` as int32 (n,), with `missing` for null."""
    ids: Ids = (codes.cast(pl.Int32) + by).fill_null(missing).to_numpy()
    return ids
