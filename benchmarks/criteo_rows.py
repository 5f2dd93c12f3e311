"""Generates tables in the format of Criteo's: a label, 13 counts and 26 columns of hashes, tab-separated, of any number of rows.

Counts are skewed and often missing. A share of a categorical column's cells are new values, so that the
vocabulary grows with the rows; the others follow a Zipf-like law over a vocabulary of typical size.
"""

from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray

from ctrlab.data.encoding.compiled.keys import mix64

_ROWS = 50_000
#: Categorical columns: number of recurring values, and the share of cells that are new values; 1.3 new values a row in all.
RECURRING = (1400, 550, 90_000, 60_000, 300, 20, 12_000, 630, 3, 40_000, 5000, 90_000, 3200, 26, 10_000, 90_000, 10, 5000, 2000,
             4, 90_000, 18, 15, 60_000, 80, 40_000)  # fmt: skip
NEW_SHARE = (0, 0, 0.3, 0.06, 0, 0, 0, 0, 0, 0.02, 0, 0.26, 0, 0, 0, 0.29, 0, 0, 0, 0, 0.28, 0, 0, 0.09, 0, 0.03)
MISSING_SHARE = (0, 0, 0.03, 0.03, 0, 0.12, 0, 0, 0, 0, 0, 0.03, 0, 0, 0, 0.03, 0, 0, 0.44, 0.44, 0.03, 0.76, 0, 0.03, 0.44, 0.44)
NUMBER_MISSING = (0.45, 0, 0.21, 0.22, 0.03, 0.22, 0.04, 0, 0.04, 0.45, 0.04, 0.77, 0.22)


def write_rows(path: Path, rows: int, seed: int = 0) -> None:
    """Write a table; the same rows for the same seed, and the first rows of a longer table."""
    with path.open("wb") as file:
        for start in range(0, rows, _ROWS):
            file.write(_block(start, min(_ROWS, rows - start), seed))


def _block(start: int, rows: int, seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng((seed, start))
    counts = np.floor(np.exp(random.standard_normal((rows, 13), np.float32) * 1.6 + 1.2)).astype(np.int64)
    counts[random.random((rows, 13), np.float32) < NUMBER_MISSING] = -1
    kind = random.random((rows, 26), np.float32)
    # u^3 concentrates the cells on the first values: a tenth of them holds about half.
    values = (random.random((rows, 26), np.float32) ** 3 * RECURRING).astype(np.int64)
    fresh = (np.arange(start, start + rows) + (1 << 24))[:, None]
    missing, new = np.array(MISSING_SHARE, np.float32), np.array(NEW_SHARE, np.float32)
    values = np.where(kind < missing, -1, np.where(kind < missing + new, fresh, values))
    clicks = random.random(rows) < 0.2 + 0.1 * (values[:, 5] < 5)
    text = np.empty(rows * 400, np.uint8)
    return text[: _write(clicks, counts, values, seed, text)]


@numba.njit(cache=True, nogil=True)
def _write(clicks, counts, values, seed, text):
    place = 0
    for row in range(len(clicks)):
        text[place] = 49 if clicks[row] else 48
        place += 1
        for column in range(counts.shape[1]):
            text[place] = 9
            place += 1
            number = counts[row, column]
            if number >= 0:
                digits = 1
                while 10**digits <= number:
                    digits += 1
                for i in range(digits):
                    text[place + digits - 1 - i] = 48 + number % 10
                    number //= 10
                place += digits
        for column in range(values.shape[1]):
            text[place] = 9
            place += 1
            if values[row, column] >= 0:
                word = mix64(np.uint64(values[row, column] * 64 + column) + np.uint64(seed << 40) + np.uint64(1))
                for i in range(8):
                    digit = np.int64((word >> np.uint64(4 * i)) & np.uint64(15))
                    text[place + i] = 48 + digit if digit < 10 else 87 + digit
                place += 8
        text[place] = 10
        place += 1
    return place
