"""Rows of delimited text to columns, and columns of ids to rows, compiled."""

import math

import numpy as np

from ctrlab.data.encoding.compiled.keys import LONG, long_key
from ctrlab.kernels.compile import compiled

#: What becomes of a column of the text.
SKIPPED, AS_KEY, AS_NUMBER, AS_SPAN = 0, 1, 2, 3
_LONG = np.uint64(LONG)
_POWERS = 10.0 ** np.arange(16)
#: Up to so many digits a decimal is a whole number below 2^53 over a power of ten: one division rounds it correctly.
_EXACT_DIGITS = 15


@compiled()
def split_rows(text, delimiter, kinds, slots, keys, numbers, spans, odd):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Split whole lines into cells.

    Args:
        text: uint8, ends with a line feed; neither quotes nor zero bytes mean anything.
        kinds, slots: of each column, what it becomes and its row in `keys` uint64 (K, n), `numbers` float64 (M, n) or `spans`
            int64 (T, n, 2), where n is at least the number of lines.
        odd: int64 (m, 4), filled with slot, row, start and stop of numbers that are not plain decimals.

    Returns:
        rows and odd numbers; -1 rows where a line has more or fewer cells than there are columns, or `odd` is full.
    """
    place, row, num_odd, last = 0, 0, 0, len(kinds) - 1
    while place < len(text):
        if text[place] == 10:  # an empty line is no row
            place += 1
            continue
        for column in range(len(kinds)):
            start, kind, slot = place, kinds[column], slots[column]
            if kind == AS_KEY:
                key, shift = np.uint64(0), np.uint64(0)
                while text[place] != delimiter and text[place] != 10:
                    if shift < 64:
                        key |= np.uint64(text[place]) << shift
                        shift += np.uint64(8)
                    place += 1
                keys[slot, row] = long_key(text, start, place) if place - start > 8 or key >= _LONG else key
            elif kind == AS_NUMBER:
                place, numbers[slot, row] = _number(text, start, delimiter)
                if place < 0:
                    if num_odd == len(odd):
                        return -1, num_odd
                    place = start
                    while text[place] != delimiter and text[place] != 10:
                        place += 1
                    odd[num_odd, 0], odd[num_odd, 1], odd[num_odd, 2], odd[num_odd, 3] = slot, row, start, place
                    num_odd += 1
            else:
                while text[place] != delimiter and text[place] != 10:
                    place += 1
                if kind == AS_SPAN:
                    spans[slot, row, 0], spans[slot, row, 1] = start, place
            if text[place] != (10 if column == last else delimiter):
                return -1, num_odd
            place += 1
        row += 1
    return row, num_odd


@compiled()
def _number(text, place, delimiter):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Where a plain decimal (-12, 0.5) ends, and its value; nan where the cell is empty; -1 where it is anything else."""
    if text[place] == delimiter or text[place] == 10:
        return place, math.nan
    negative = text[place] == 45
    place += 1 if negative else 0
    whole, digits, decimals = np.int64(0), 0, -1
    while text[place] != delimiter and text[place] != 10:
        if text[place] == 46 and decimals < 0 and digits > 0:
            decimals = 0
        elif 48 <= text[place] <= 57 and digits < _EXACT_DIGITS:
            whole = whole * 10 + (text[place] - 48)
            digits += 1
            decimals += 1 if decimals >= 0 else 0
        else:
            return -1, 0.0
        place += 1
    if digits == 0 or decimals == 0:
        return -1, 0.0
    value = np.float64(whole) / _POWERS[max(decimals, 0)]
    return place, -value if negative else value


@compiled()
def gather_spans(text, spans, rows):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Arrow's strings of spans int64 (n, 2): offsets int64 (rows + 1,), bytes."""
    offsets = np.zeros(rows + 1, np.int64)
    for i in range(rows):
        offsets[i + 1] = offsets[i] + spans[i, 1] - spans[i, 0]
    gathered = np.empty(offsets[rows], np.uint8)
    for i in range(rows):
        gathered[offsets[i] : offsets[i + 1]] = text[spans[i, 0] : spans[i, 1]]
    return offsets, gathered


@compiled()
def deal(columns, places, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """out[places[i], f] = columns[f, i], a few thousand rows at a time: a row's cache lines are filled while they are hot."""
    tile = 2048
    for start in range(0, columns.shape[1], tile):
        stop = min(start + tile, columns.shape[1])
        for field in range(columns.shape[0]):
            for i in range(start, stop):
                out[places[i], field] = columns[field, i]


@compiled()
def tally(ids, train, counts):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Add training rows' ids to `counts`; how many of the other rows have id 0."""
    unknown = 0
    for i in range(len(ids)):
        if train[i]:
            counts[ids[i]] += 1
        else:
            unknown += ids[i] == 0
    return unknown
