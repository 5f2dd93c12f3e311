"""Assigns rows to splits: a function of the seed and the row number, independent of the block size."""

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.configs import SplitConfig

#: Consecutive rows of one class that the stratified split assigns together: each such run meets the shares to within one row.
STRATUM_ROWS = 20
#: Splits in the order of time: train, finetune, valid, test.
TIME_ORDER = (0, 3, 1, 2)


class SplitAssigner:
    """Assigns rows to the splits 0..3 (`SPLIT_NAMES`), in the order of the file."""

    def __init__(self, config: SplitConfig, time_borders: NDArray[np.int64] | None = None) -> None:
        self.config = config
        self.time_borders = time_borders
        self._num_rows = 0
        self._class_rows = [0, 0]

    @property
    def class_rows(self) -> list[int]:
        """Non-clicks and clicks so far; only counted for a stratified split."""
        return list(self._class_rows)

    def resume(self, num_rows: int, class_rows: list[int]) -> None:
        """Continue after `num_rows` rows, of which `class_rows` of each class."""
        self._num_rows, self._class_rows = num_rows, list(class_rows)

    def assign(
        self, labels: NDArray[np.uint8], times: NDArray[np.int64] | None = None, *, file_number: int = 0
    ) -> NDArray[np.uint8]:
        """The split of each of the next rows, uint8 (n,).

        Args:
            labels: uint8 (n,).
            times: int64 (n,) microseconds since 1970; only for a split by time.
            file_number: index of the source file that holds the rows; only for a split by files.
        """
        if self.config.method == "files":
            return np.full(len(labels), file_number, np.uint8)
        first, self._num_rows = self._num_rows, self._num_rows + len(labels)
        if self.config.method == "time":
            assert times is not None and self.time_borders is not None
            slots = np.searchsorted(self.time_borders, times, side="left")
            return np.array(TIME_ORDER, np.uint8)[slots]
        if self.config.method == "stratified":
            return self._stratified(labels)
        return self._by_share(_uniform(np.arange(first, self._num_rows), self.config.seed))

    def _stratified(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        splits = np.empty(len(labels), np.uint8)
        for label in (0, 1):
            rows = np.flatnonzero(labels == label)
            first = self._class_rows[label]
            self._class_rows[label] += len(rows)
            splits[rows] = self._by_share(_spread_uniform(first, len(rows), self.config.seed * 2 + label))
        return splits

    def _by_share(self, uniform: NDArray[np.float64]) -> NDArray[np.uint8]:
        borders = np.cumsum(self.config.fractions)
        # Rounding may leave the last border below 1; rows above it belong to the last split with a share.
        borders[np.flatnonzero(self.config.fractions)[-1] :] = np.inf
        return np.searchsorted(borders, uniform, side="right").astype(np.uint8)


def _hash(numbers: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """splitmix64 of (seed, number): a counter-based random generator, so that any row can be drawn independently."""
    mixed_seed = (seed * 0xD1342543DE82EF95 + 0x9E3779B97F4A7C15) % 2**64
    x = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(mixed_seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def _uniform(numbers: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    return (_hash(numbers, seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _spread_uniform(first: int, count: int, seed: int) -> NDArray[np.float64]:
    """Numbers in (0, 1) for rows first..first+count-1: an even grid over each run of `STRATUM_ROWS`, in random order."""
    start, stop = first // STRATUM_ROWS * STRATUM_ROWS, -(-(first + count) // STRATUM_ROWS) * STRATUM_ROWS
    hashes = _hash(np.arange(start, stop), seed).reshape(-1, STRATUM_ROWS)
    ranks = hashes.argsort(axis=1).argsort(axis=1)
    # A random shift of each run's grid makes shares unbiased that are not a multiple of 1/STRATUM_ROWS.
    shifts = _uniform(np.arange(start // STRATUM_ROWS, stop // STRATUM_ROWS), ~seed)
    return ((ranks + shifts[:, None]) / STRATUM_ROWS).ravel()[first - start : first - start + count]
