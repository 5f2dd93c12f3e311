"""Which part each row belongs to: decided row by row from the seed and the row's number, whatever the block size."""

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.configs import SplitConfig

#: Rows of one class dealt out together by the stratified split: each such run holds the shares to within one row.
STRATUM_ROWS = 20
#: The order in time: what is fine-tuned on comes after training and before validation.
TIME_ORDER = (0, 3, 1, 2)


class SplitAssigner:
    """Deals rows to parts 0..3 (`SPLIT_NAMES`), in the order of the file."""

    def __init__(self, config: SplitConfig, time_borders: NDArray[np.int64] | None = None) -> None:
        self.config = config
        self.time_borders = time_borders
        self._num_rows = 0
        self._class_rows = [0, 0]

    @property
    def class_rows(self) -> list[int]:
        """Rows of each class so far; only counted for a stratified split."""
        return list(self._class_rows)

    def take_up(self, num_rows: int, class_rows: list[int]) -> None:
        """Go on after so many rows, and `class_rows` of them."""
        self._num_rows, self._class_rows = num_rows, list(class_rows)

    def assign(
        self, labels: NDArray[np.uint8], times: NDArray[np.int64] | None = None, *, file_number: int = 0
    ) -> NDArray[np.uint8]:
        """The part of each of the next rows, uint8 (n,).

        Args:
            labels: uint8 (n,).
            times: int64 (n,) microseconds since 1970; only for a split by time.
            file_number: which of the source's files the rows come from; only for a split by files.
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
        return self._parts(_uniform(np.arange(first, self._num_rows), self.config.seed))

    def _stratified(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        parts = np.empty(len(labels), np.uint8)
        for label in (0, 1):
            rows = np.flatnonzero(labels == label)
            first = self._class_rows[label]
            self._class_rows[label] += len(rows)
            parts[rows] = self._parts(_spread_uniform(first, len(rows), self.config.seed * 2 + label))
        return parts

    def _parts(self, uniform: NDArray[np.float64]) -> NDArray[np.uint8]:
        borders = np.cumsum(self.config.fractions)
        # Rounding may leave the last border below 1; the rows above it belong to the last part that has a share.
        borders[np.flatnonzero(self.config.fractions)[-1] :] = np.inf
        return np.searchsorted(borders, uniform, side="right").astype(np.uint8)


def _hash(numbers: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """splitmix64 of (seed, number): a counter-based generator, so that any row can be drawn alone."""
    mixed_seed = (seed * 0xD1342543DE82EF95 + 0x9E3779B97F4A7C15) % 2**64
    x = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(mixed_seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def _uniform(numbers: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    return (_hash(numbers, seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _spread_uniform(first: int, count: int, seed: int) -> NDArray[np.float64]:
    """Numbers in (0, 1) for rows first..first+count-1, evenly spread over each run of `STRATUM_ROWS` in a random order."""
    start, stop = first // STRATUM_ROWS * STRATUM_ROWS, -(-(first + count) // STRATUM_ROWS) * STRATUM_ROWS
    hashes = _hash(np.arange(start, stop), seed).reshape(-1, STRATUM_ROWS)
    ranks = hashes.argsort(axis=1).argsort(axis=1)
    # A random shift of each run's grid keeps shares that are no multiple of 1/STRATUM_ROWS unbiased.
    shifts = _uniform(np.arange(start // STRATUM_ROWS, stop // STRATUM_ROWS), ~seed)
    return ((ranks + shifts[:, None]) / STRATUM_ROWS).ravel()[first - start : first - start + count]
