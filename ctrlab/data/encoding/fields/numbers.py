"""Numeric columns, as standardised values or as quantile buckets."""

import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.encoding.fields.base import NUM_RESERVED_IDS, Ids, Numbers, NumericField, ParsedCells
from ctrlab.data.schema import MISSING_ID
from ctrlab.data.tables.cells import PLAIN_CELLS, CellRules

#: Size of the sample that quantiles are computed from; exact up to this many training rows.
QUANTILE_SAMPLE_ROWS = 1 << 20


class NumberField(NumericField):
    """A standardised number (mean 0, variance 1 over the training rows); with `log`, of sign(x) log(1 + |x|).

    A missing number becomes 0, the mean.
    """

    output = "values"
    cell_dtype = np.float64

    def __init__(self, name: str, column: str, log: bool, rules: CellRules = PLAIN_CELLS) -> None:
        super().__init__(name, column, rules)
        self.log = log
        self.mean, self.std = 0.0, 1.0
        self._moments = (0, 0.0, 0.0)  # n, mean, sum of squared deviations

    @property
    def field_dim(self) -> int:
        return 0

    def parse_numbers(self, numbers: Numbers) -> Numbers:
        return np.sign(numbers) * np.log1p(np.abs(numbers)) if self.log else numbers

    def fit(self, cells: ParsedCells) -> None:
        self._moments = (0, 0.0, 0.0)
        for numbers, train in cells.blocks():
            seen = numbers[train]
            self._merge(seen[~np.isnan(seen)])
        count, mean, squares = self._moments
        std = math.sqrt(squares / count) if count else 0.0
        # A constant column has no standard deviation to divide by; its values become 0.
        self.mean, self.std = mean, std if std > 1e-12 * abs(mean) and std > 0 else 1.0

    def encode(self, cells: Numbers) -> NDArray[np.float32]:
        return np.nan_to_num((cells - self.mean) / self.std, nan=0.0).astype(np.float32)

    def state(self) -> dict[str, Any]:
        own = {"log": self.log, "mean": self.mean, "std": self.std}
        return {"name": self.name, "column": self.column, **own, **self.rules.state()}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        field = cls(state["name"], state["column"], state["log"], CellRules.restore(state))
        field.mean, field.std = state["mean"], state["std"]
        return field

    def _merge(self, numbers: Numbers) -> None:
        """Chan's parallel update of count, mean and sum of squared deviations; numerically stable."""
        if not len(numbers):
            return
        n, mean, squares = self._moments
        m, block_mean = len(numbers), float(numbers.mean())
        shift = block_mean - mean
        block_squares = float(((numbers - block_mean) ** 2).sum())
        self._moments = (n + m, mean + shift * m / (n + m), squares + block_squares + shift**2 * n * m / (n + m))


class QuantileField(NumericField):
    """A number as its quantile bucket; borders are quantiles of the training rows, so that buckets hold equally many rows."""

    output = "ids"
    cell_dtype = np.float64

    def __init__(self, name: str, column: str, num_buckets: int, rules: CellRules = PLAIN_CELLS) -> None:
        super().__init__(name, column, rules)
        self.num_buckets = num_buckets
        self.borders: Numbers = np.empty(0)
        self._sample: list[Numbers] = []
        self._stride, self._skip, self._sample_size = 1, 0, 0

    @property
    def field_dim(self) -> int:
        return NUM_RESERVED_IDS + len(self.borders) + 1

    def parse_numbers(self, numbers: Numbers) -> Numbers:
        return numbers

    def fit(self, cells: ParsedCells) -> None:
        self._sample, self._stride, self._skip, self._sample_size = [], 1, 0, 0
        for numbers, train in cells.blocks():
            seen = numbers[train]
            self._add_to_sample(seen[~np.isnan(seen)])
        seen = np.concatenate(self._sample) if self._sample else np.empty(0)
        inner = np.arange(1, self.num_buckets) / self.num_buckets
        # Equal quantiles (many equal numbers) give one border; no bucket lies above the largest number.
        borders = np.unique(np.quantile(seen, inner, method="inverted_cdf")) if len(seen) else np.empty(0)
        self.borders = borders[borders < seen.max()] if len(seen) else borders
        self._sample = []

    def encode(self, cells: Numbers) -> Ids:
        buckets = np.searchsorted(self.borders, cells, side="left") + NUM_RESERVED_IDS
        return np.where(np.isnan(cells), MISSING_ID, buckets).astype(np.int32)

    def state(self) -> dict[str, Any]:
        own = {"num_buckets": self.num_buckets, "borders": self.borders.tolist()}
        return {"name": self.name, "column": self.column, **own, **self.rules.state()}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        field = cls(state["name"], state["column"], state["num_buckets"], CellRules.restore(state))
        field.borders = np.array(state["borders"], np.float64)
        return field

    def _add_to_sample(self, numbers: Numbers) -> None:
        """Systematic sample: every `_stride`-th number; when it grows too large, every other is dropped, the stride doubles."""
        sampled = numbers[self._skip :: self._stride]
        self._skip = (self._skip - len(numbers)) % self._stride
        self._sample.append(sampled)
        self._sample_size += len(sampled)
        while self._sample_size > QUANTILE_SAMPLE_ROWS:
            everything = np.concatenate(self._sample)
            self._skip += self._stride if len(everything) % 2 else 0
            self._sample, self._stride = [everything[::2]], self._stride * 2
            self._sample_size = len(self._sample[0])
