"""Compiled loops: delimited text to columns, and encoded columns to rows."""

import math

import numpy as np

from ctrlab.data.encoding.compiled.cells import clean_span
from ctrlab.data.encoding.compiled.keys import LONG, key_of, long_key
from ctrlab.kernels.compile import compiled

#: How `split_rows` parses a column.
SKIPPED, AS_KEY, AS_NUMBER, AS_SPAN = 0, 1, 2, 3
_LONG = np.uint64(LONG)
_POWERS = 10.0 ** np.arange(16)
#: A decimal of at most this many digits is an integer below 2^53 over a power of ten: one division rounds it correctly.
_EXACT_DIGITS = 15
#: Bytes at the ends of a text that may have to be cleaned: blanks, the two bytes of a no-break space, and the digit 0 of 12.0.
_AT_START, _AT_END = np.zeros(256, np.bool_), np.zeros(256, np.bool_)
_AT_START[[9, 11, 12, 13, 32, 194]] = True
_AT_END[[9, 11, 12, 13, 32, 160, 48]] = True


@compiled()
def split_rows(text, delimiter, row_end, kinds, slots, trim, word_table, keys, numbers, spans, irregular):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Split whole lines into cells.

    Args:
        text: uint8, ends with `row_end`; quotes and zero bytes have no special meaning.
        delimiter, row_end: bytes that end a cell and a row.
        trim: bool (columns,), whether blanks at the ends of a key's text are removed. word_table: see `cells.word_table`.
        kinds, slots: for each column, how it is parsed and its row in `keys` uint64 (K, n), `numbers` float64 (M, n) or `spans`
            int64 (T, n, 2), where n is at least the number of lines.
        irregular: int64 (m, 4), filled with slot, row, start and stop of numbers that are not plain decimals.

    Returns:
        numbers of rows and of irregular numbers; -1 rows if a line has more or fewer cells than columns, or `irregular` is full.
    """
    place, row, num_irregular, last = 0, 0, 0, len(kinds) - 1
    words, starts, first = word_table
    while place < len(text):
        if text[place] == row_end:  # empty lines are skipped
            place += 1
            continue
        for column in range(len(kinds)):
            start, kind, slot = place, kinds[column], slots[column]
            if kind == AS_KEY:
                key, shift = np.uint64(0), np.uint64(0)
                while text[place] != delimiter and text[place] != row_end:
                    if shift < 64:
                        key |= np.uint64(text[place]) << shift
                        shift += np.uint64(8)
                    place += 1
                if place > start and (_AT_START[text[start]] or first[text[start]] or _AT_END[text[place - 1]]):
                    a, b = clean_span(text, start, place, trim[column], False, words, starts, first)
                    keys[slot, row] = key_of(text, a, b)
                else:
                    keys[slot, row] = long_key(text, start, place) if place - start > 8 or key >= _LONG else key
            elif kind == AS_NUMBER:
                place, numbers[slot, row] = _number(text, start, delimiter, row_end)
                if place < 0:
                    place = start
                    while text[place] != delimiter and text[place] != row_end:
                        place += 1
                    a, b = clean_span(text, start, place, True, False, words, starts, first)
                    if a == b:
                        numbers[slot, row] = math.nan
                    elif num_irregular == len(irregular):
                        return -1, num_irregular
                    else:
                        irregular[num_irregular, 0], irregular[num_irregular, 1] = slot, row
                        irregular[num_irregular, 2], irregular[num_irregular, 3] = start, place
                        num_irregular += 1
            else:
                while text[place] != delimiter and text[place] != row_end:
                    place += 1
                if kind == AS_SPAN:
                    spans[slot, row, 0], spans[slot, row, 1] = start, place
            if text[place] != (row_end if column == last else delimiter):
                return -1, num_irregular
            place += 1
        row += 1
    return row, num_irregular


@compiled()
def _number(text, place, delimiter, row_end):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """End and value of a plain decimal (-12, 0.5), spaces around it aside; nan for an empty cell; end -1 otherwise."""
    while text[place] == 32 and delimiter != 32:
        place += 1
    if text[place] == delimiter or text[place] == row_end:
        return place, math.nan
    negative = text[place] == 45
    place += 1 if negative else 0
    whole, digits, decimals = np.int64(0), 0, -1
    while text[place] != delimiter and text[place] != row_end:
        if text[place] == 46 and decimals < 0 and digits > 0:
            decimals = 0
        elif 48 <= text[place] <= 57 and digits < _EXACT_DIGITS:
            whole = whole * 10 + (text[place] - 48)
            digits += 1
            decimals += 1 if decimals >= 0 else 0
        elif text[place] == 32 and digits > 0:
            while text[place] == 32:
                place += 1
            if text[place] != delimiter and text[place] != row_end:
                return -1, 0.0
            break
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
    at = 0
    for i in range(rows):
        for place in range(spans[i, 0], spans[i, 1]):
            gathered[at] = text[place]
            at += 1
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
def count_ids(ids, splits, counts, unknown):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Add the ids of training rows (split 0) to `counts`, and the cells with id 0 of each other split to `unknown` int64 (4,)."""
    for i in range(len(ids)):
        if splits[i] == 0:
            counts[ids[i]] += 1
        else:
            unknown[splits[i]] += ids[i] == 0
