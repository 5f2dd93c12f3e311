"""Compiled loops over 64-bit keys of texts, and over hash tables of keys.

The key of a text of at most eight bytes is the text itself, its first byte in the lowest byte: equal keys mean equal texts, and
the text can be restored from the key. The key of a longer text (or one with a zero byte, or of eight bytes with the last above
127) is a 63-bit hash with the top bit set; of n distinct long texts two share a hash with probability n^2 / 2^64, 5e-6 for ten
million. The key of the empty text, a missing cell, is 0.

A hash table is uint64 (slots, 2): a key (0 where the slot is free) and its count or id. The number of slots is a power of two;
collisions are resolved by linear probing.
"""

import numpy as np

from ctrlab.kernels.compile import compiled

#: The bit that marks a hash.
LONG = 1 << 63
_LONG = np.uint64(LONG)
_ONE, _TWO, _THREE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@compiled(inline="always")
def mix64(key):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """The finaliser of splitmix64: every bit of the key affects every bit of the result."""
    key = (key ^ (key >> np.uint64(30))) * _TWO
    key = (key ^ (key >> np.uint64(27))) * _THREE
    return key ^ (key >> np.uint64(31))


@compiled()
def long_key(text, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """The hash key of text[start:stop], eight bytes per step."""
    found = np.uint64(stop - start) * _ONE
    place = start
    while place < stop:
        word, end = np.uint64(0), min(place + 8, stop)
        for i in range(place, end):
            word |= np.uint64(text[i]) << np.uint64(8 * (i - place))
        found = mix64((found ^ word) + _ONE)
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
def texts_of(keys):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Arrow strings of keys that are not hashes, as offsets int64 (n + 1,) and bytes."""
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
    """Count the training rows' keys that belong to a part; `table` must have room. Returns the number of used slots.

    A key belongs to the part given by the highest `part_bits` bits of its mixed value.
    """
    mask = np.uint64(len(table) - 1)
    shift = np.uint64(64 - part_bits)
    for i in range(len(keys)):
        key = keys[i]
        if key == 0 or not train[i]:
            continue
        hashed = mix64(key)
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
def insert_keys(keys, values, table):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Insert distinct keys with their values into a table that has room."""
    mask = np.uint64(len(table) - 1)
    for i in range(len(keys)):
        slot = mix64(keys[i]) & mask
        while table[slot, 0] != 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot, 0], table[slot, 1] = keys[i], np.uint64(values[i])


@compiled()
def look_up_ids(keys, missing, absent, table):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """The value of each key as int32 (n,); `missing` for key 0, `absent` for keys that are not in the table."""
    found = np.empty(len(keys), np.int32)
    mask = np.uint64(len(table) - 1)
    for i in range(len(keys)):
        key = keys[i]
        if key == 0:
            found[i] = missing
            continue
        slot = mix64(key) & mask
        while table[slot, 0] != key and table[slot, 0] != 0:
            slot = (slot + np.uint64(1)) & mask
        found[i] = np.int32(table[slot, 1]) if table[slot, 0] == key else absent
    return found
