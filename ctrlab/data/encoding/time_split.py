"""Borders of a split by time, computed in one pass over the time column with bounded memory."""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.configs import ColumnConfig, DatasetConfig, SplitConfig
from ctrlab.data.encoding.splits import TIME_ORDER
from ctrlab.data.tables.numbers import read_numbers
from ctrlab.data.tables.reader import Table
from ctrlab.data.tables.timestamps import find_format, parse_instants
from ctrlab.errors import DataError

#: Largest number of distinct times that are counted; beyond it their resolution is reduced.
MAX_DISTINCT_TIMES = 1 << 21


def time_borders(times: NDArray[np.int64], counts: NDArray[np.int64], config: SplitConfig) -> NDArray[np.int64]:
    """The last time of train, finetune and valid, int64 (3,). Rows with equal times stay in one split.

    Args:
        times: int64, distinct and ascending. counts: number of rows at each time.
    """
    ends = np.cumsum([config.fractions[split] for split in TIME_ORDER])[:3]
    cumulative = np.cumsum(counts)
    # The time whose cumulative share is nearest to the requested one.
    targets = ends * cumulative[-1]
    after = np.searchsorted(cumulative, targets).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    nearer = np.where(np.abs(cumulative[before] - targets) < np.abs(cumulative[after] - targets), before, after)
    borders: NDArray[np.int64] = times[nearer]
    for i, split in enumerate(TIME_ORDER[1:3], 1):
        if config.fractions[split] == 0:  # an empty split ends with the one before it
            borders[i] = borders[i - 1]
    if config.test == 0:
        borders[2] = times[-1]
    return borders


class TimeCounts:
    """Number of rows at each time. Memory is bounded by reducing the resolution of the times."""

    def __init__(self) -> None:
        self._resolution = 1
        self._times = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)

    def add(self, times: NDArray[np.int64]) -> None:
        self._merge(times // self._resolution, np.ones(len(times), np.int64))
        while len(self._times) > MAX_DISTINCT_TIMES:
            self._resolution *= 10
            times, counts = self._times // 10, self._counts
            self._times, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)
            self._merge(times, counts)

    def borders(self, config: SplitConfig) -> NDArray[np.int64]:
        last_of_step = (self._times + 1) * self._resolution - 1
        return time_borders(last_of_step, self._counts, config)

    def _merge(self, times: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self._times, slots = np.unique(np.concatenate([self._times, times]), return_inverse=True)
        merged = np.zeros(len(self._times), np.int64)
        np.add.at(merged, slots, np.concatenate([self._counts, counts]))
        self._counts = merged


class TimeReader:
    """Parses the time column, for a split by time."""

    def __init__(self, config: DatasetConfig) -> None:
        assert config.split.time_column is not None
        self.config = config.split
        self.column = config.split.time_column
        given: dict[str, ColumnConfig] = {column.name: column for column in config.columns}
        self.timestamp_format = given[self.column].timestamp_format if self.column in given else None
        self._known = self.timestamp_format is not None
        self.rows = 0

    def borders(self, reader: Table, report: Callable[[float], None]) -> NDArray[np.int64]:
        """The last time of train, finetune and valid, from one pass over the time column."""
        counts, self.rows = TimeCounts(), 0
        for block in reader.blocks([self.column]):
            counts.add(self.read(block[self.column]))
            report(reader.bytes_read / reader.total_bytes)
        return counts.borders(self.config)

    def resume(self, timestamp_format: str | None, rows: int) -> None:
        """Continue after `rows` rows, in the format that `borders` found."""
        self.timestamp_format, self._known, self.rows = timestamp_format, True, rows

    def read(self, texts: pl.Series) -> NDArray[np.int64]:
        """Times in microseconds, int64 (n,); offsets from UTC are subtracted.

        Plain numbers, such as days, are read as seconds: only their order matters.
        """
        if not self._known:
            self.timestamp_format, self._known = find_format(texts, "time"), True
        if self.timestamp_format is None:
            seconds = read_numbers(texts)[0]
            times = pl.Series(np.round(seconds * 1e6), nan_to_null=True).cast(pl.Int64)
        else:
            times = parse_instants(texts, self.timestamp_format).dt.epoch("us")
        if times.null_count():
            row = self.rows + int(times.is_null().arg_max() or 0)
            raise DataError(
                f"column {self.column!r} has no readable time in data row {row + 1}; a split by time needs one in every row, "
                "so set the column's timestamp format or choose another split"
            )
        self.rows += len(texts)
        return times.to_numpy()
