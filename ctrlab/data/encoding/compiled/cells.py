"""Compiled loops: the canonical text of a cell on bytes, as `ctrlab.data.tables.cells.canonical` defines it."""

import numpy as np

from ctrlab.data.encoding.compiled.keys import key_of
from ctrlab.kernels.compile import compiled


def word_table(words):  # type: ignore[no-untyped-def]
    """Lower-case ASCII words, and other words as they are, in the form that `clean_span` reads.

    Returns:
        words uint8 (W, longest) by length; the first word of each length, int64 (longest + 2,); and a mask bool (256,) of the
        bytes with which a word, in small or capital letters, begins.
    """
    spellings = {way for word in words if word for way in ((word,) if word.isascii() else (word, word.upper(), word.title()))}
    texts = sorted((word.encode() for word in spellings), key=lambda text: (len(text), text))
    longest = max(map(len, texts), default=0)
    table = np.zeros((len(texts), max(1, longest)), np.uint8)
    for row, text in zip(table, texts, strict=True):
        row[: len(text)] = np.frombuffer(text, np.uint8)
    starts = np.searchsorted([len(text) for text in texts], np.arange(longest + 2)).astype(np.int64)
    first = np.zeros(256, np.bool_)
    for text in texts:
        first[[text[0], text[:1].upper()[0]]] = True
    return table, starts, first


@compiled()
def clean_span(text, start, stop, trim, unquote, words, starts, first):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Start and stop of the canonical text of text[start:stop]; equal where the cell is missing."""
    a, b = _trimmed(text, start, stop)
    if unquote and b - a >= 2 and text[a] == text[b - 1] and (text[a] == 34 or text[a] == 39):
        a, b = _trimmed(text, a + 1, b - 1)
    if a == b:
        return a, a
    if first[text[a]] and b - a < len(starts) - 1:
        for word in range(starts[b - a], starts[b - a + 1]):
            i = 0
            while i < b - a and (text[a + i] | 32 if 65 <= text[a + i] <= 90 else text[a + i]) == words[word, i]:
                i += 1
            if i == b - a:
                return a, a
    if not trim and not unquote:
        a, b = start, stop
    if text[b - 1] != 48:
        return a, b
    point = b - 1
    while point > a and text[point] == 48:
        point -= 1
    if point == a and text[a] == 45:  # -0
        return a + 1, b
    sign = 1 if text[a] == 43 or text[a] == 45 else 0
    if text[point] != 46 or point == a + sign:
        return a, b
    zero = text[a] == 45
    for i in range(a + sign, point):
        if not 48 <= text[i] <= 57:
            return a, b
        zero &= text[i] == 48
    return a + 1 if zero else a, point


@compiled()
def _trimmed(text, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Start and stop without blanks at both ends; a no-break space is the bytes 194, 160."""
    while start < stop:
        if text[start] == 32 or 9 <= text[start] <= 13:
            start += 1
        elif stop - start >= 2 and text[start] == 194 and text[start + 1] == 160:
            start += 2
        else:
            break
    while start < stop:
        if text[stop - 1] == 32 or 9 <= text[stop - 1] <= 13:
            stop -= 1
        elif stop - start >= 2 and text[stop - 2] == 194 and text[stop - 1] == 160:
            stop -= 2
        else:
            break
    return start, stop


@compiled()
def clean_keys_of(offsets, text, trim, unquote, words, starts, first):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Keys uint64 (n,) of the canonical texts of Arrow strings given as offsets int64 (n + 1,) and bytes; 0 where missing."""
    keys = np.empty(len(offsets) - 1, np.uint64)
    for i in range(len(keys)):
        start, stop = clean_span(text, offsets[i], offsets[i + 1], trim, unquote, words, starts, first)
        keys[i] = key_of(text, start, stop)
    return keys
