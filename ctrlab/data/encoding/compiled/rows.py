"""Compiled loops: delimited text to columns, and encoded columns to rows."""

import math

import numpy as np

from ctrlab.data.encoding.compiled.keys import LONG, long_key
from ctrlab.kernels.compile import compiled

#: How `split_rows` parses a column.
SKIPPED, AS_KEY, AS_NUMBER, AS_SPAN = 0, 1, 2, 3
_LONG = np.uint64(LONG)
_POWERS = 10.0 ** np.arange(16)
#: A decimal of at most this many digits is an integer below 2^53 over a power of ten: one division rounds it correctly.
_EXACT_DIGITS = 15


@compiled()
def split_rows(text, delimiter, kinds, slots, keys, numbers, spans, irregular):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Split whole lines into cells.

    Args:
        text: uint8, ends with a line feed; quotes and zero bytes have no special meaning.
        kinds, slots: for each column, how it is parsed and its row in `keys` uint64 (K, n), `numbers` float64 (M, n) or `spans`
            int64 (T, n, 2), where n is at least the number of lines.
        irregular: int64 (m, 4), filled with slot, row, start and stop of numbers that are not plain decimals.

    Returns:
        numbers of rows and of irregular numbers; -1 rows if a line has more or fewer cells than columns, or `irregular` is full.
    """
    place, row, num_irregular, last = 0, 0, 0, len(kinds) - 1
    while place < len(text):
        if text[place] == 10:  # empty lines are skipped
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
                    if num_irregular == len(irregular):
                        return -1, num_irregular
                    place = start
                    while text[place] != delimiter and text[place] != 10:
                        place += 1
                    irregular[num_irregular, 0], irregular[num_irregular, 1] = slot, row
                    irregular[num_irregular, 2], irregular[num_irregular, 3] = start, place
                    num_irregular += 1
            else:
                while text[place] != delimiter and text[place] != 10:
                    place += 1
                if kind == AS_SPAN:
                    spans[slot, row, 0], spans[slot, row, 1] = start, place
            if text[place] != (10 if column == last else delimiter):
                return -1, num_irregular
            place += 1
        row += 1
    return row, num_irregular


@compiled()
def _number(text, place, delimiter):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """End and value of a plain decimal (-12, 0.5); nan for an empty cell; end -1 for anything else."""
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
    """Arrow strings of the spans int64 (n, 2) of a text, as offsets int64 (rows + 1,) and bytes."""
    offsets = np.zeros(rows + 1, np.int64)
    for i in range(rows):
        offsets[i + 1] = offsets[i] + spans[i, 1] - spans[i, 0]
    gathered = np.empty(offsets[rows], np.uint8)
    for i in range(rows):
        gathered[offsets[i] : offsets[i + 1]] = text[spans[i, 0] : spans[i, 1]]
    return offsets, gathered


@compiled()
def scatter_rows(columns, places, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """out[places[i], f] = columns[f, i], tiled by rows so that a row's cache lines are filled while they are in the cache."""
    tile = 2048
    for start in range(0, columns.shape[1], tile):
        stop = min(start + tile, columns.shape[1])
        for field in range(columns.shape[0]):
            for i in range(start, stop):
                out[places[i], field] = columns[field, i]


@compiled()
def count_ids(ids, train, counts):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Add the ids of training rows to `counts`; returns the number of other rows with id 0."""
    unknown = 0
    for i in range(len(ids)):
        if train[i]:
            counts[ids[i]] += 1
        else:
            unknown += ids[i] == 0
    return unknown
