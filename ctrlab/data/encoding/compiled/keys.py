"""Texts as 64-bit keys, and tables of keys: counting and looking up, compiled.

A text of at most eight bytes is its own key: its bytes, the first in the lowest byte, so that equal keys mean equal texts and the
text can be read off the key. A longer one (or one with a zero byte, or of eight bytes whose last is above 127) is a 63-bit hash
with the top bit set. Of n distinct long texts two share a hash with probability n^2 / 2^64: 5e-6 for ten million.
0 is the empty text, which is a missing cell.

A table is uint64 (slots, 2): a key, 0 where the slot is free, and its count or id. Slots are a power of two, searched linearly.
"""

import numpy as np

from ctrlab.kernels.compile import compiled

#: The bit that tells a hash from a text of eight bytes.
LONG = 1 << 63
_LONG = np.uint64(LONG)
_ONE, _TWO, _THREE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@compiled(inline="always")
def mixed(key):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """splitmix64's finish: all bits of the key in all bits of the result."""
    key = (key ^ (key >> np.uint64(30))) * _TWO
    key = (key ^ (key >> np.uint64(27))) * _THREE
    return key ^ (key >> np.uint64(31))


@compiled()
def long_key(text, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """The hash of text[start:stop], eight bytes a step."""
    found = np.uint64(stop - start) * _ONE
    place = start
    while place < stop:
        word, end = np.uint64(0), min(place + 8, stop)
        for i in range(place, end):
            word |= np.uint64(text[i]) << np.uint64(8 * (i - place))
        found = mixed((found ^ word) + _ONE)
        place = end
    return found | _LONG


@compiled()
def key_of(text, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """The key of text[start:stop]."""
    if stop - start > 8:
        return long_key(text, start, stop)
    key, zero = np.uint64(0), False
    for i in range(start, stop):
        zero |= text[i] == 0
        key |= np.uint64(text[i]) << np.uint64(8 * (i - start))
    return long_key(text, start, stop) if zero or key >= _LONG else key


@compiled()
def keys_of(offsets, text):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Keys uint64 (n,) of Arrow's strings: offsets (n + 1,), bytes."""
    keys = np.empty(len(offsets) - 1, np.uint64)
    for i in range(len(keys)):
        keys[i] = key_of(text, offsets[i], offsets[i + 1])
    return keys


@compiled()
def texts_of(keys):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Arrow's strings of short keys: offsets int64 (n + 1,), bytes."""
    offsets, text = np.zeros(len(keys) + 1, np.int64), np.empty(8 * len(keys), np.uint8)
    end = 0
    for i in range(len(keys)):
        rest = keys[i]
        while rest:
            text[end] = rest & np.uint64(255)
            rest >>= np.uint64(8)
            end += 1
        offsets[i + 1] = end
    return offsets, text[:end]


@compiled()
def count_keys(keys, train, part_bits, part, used, table):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Count the training rows' keys that belong to a part; `table` must have room. Returns how many slots are used now.

    A part is the keys whose highest `part_bits` bits, once mixed, are `part`.
    """
    mask = np.uint64(len(table) - 1)
    shift = np.uint64(64 - part_bits)
    for i in range(len(keys)):
        key = keys[i]
        if key == 0 or not train[i]:
            continue
        hashed = mixed(key)
        if part_bits and (hashed >> shift) != part:
            continue
        slot = hashed & mask
        while table[slot, 0] != key:
            if table[slot, 0] == 0:
                table[slot, 0] = key
                used += 1
                break
            slot = (slot + np.uint64(1)) & mask
        table[slot, 1] += np.uint64(1)
    return used


@compiled()
def insert(keys, values, table):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Put distinct keys with their values into a table that has room."""
    mask = np.uint64(len(table) - 1)
    for i in range(len(keys)):
        slot = mixed(keys[i]) & mask
        while table[slot, 0] != 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot, 0], table[slot, 1] = keys[i], np.uint64(values[i])


@compiled()
def look_up(keys, missing, absent, table):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """The value of each key as int32 (n,); `missing` of key 0, `absent` of keys that are not in the table."""
    found = np.empty(len(keys), np.int32)
    mask = np.uint64(len(table) - 1)
    for i in range(len(keys)):
        key = keys[i]
        if key == 0:
            found[i] = missing
            continue
        slot = mixed(key) & mask
        while table[slot, 0] != key and table[slot, 0] != 0:
            slot = (slot + np.uint64(1)) & mask
        found[i] = np.int32(table[slot, 1]) if table[slot, 0] == key else absent
    return found
