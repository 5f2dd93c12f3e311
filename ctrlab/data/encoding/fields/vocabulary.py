"""Counts the distinct keys of a column in bounded memory; converts texts to keys and back.

`ctrlab.data.encoding.compiled.keys` defines the keys. The compiled loops are imported inside functions, because the dashboard
imports the fields too and should not load numba.
"""

import functools

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from ctrlab.data.encoding.fields.base import ParsedCells
from ctrlab.data.tables.cells import PLAIN_CELLS, CellRules, canonical

Keys = NDArray[np.uint64]

#: Most distinct keys in the hash table; a column with more is counted in several passes, each over a part of the keys.
MAX_DISTINCT = 1 << 22
_LONG = np.uint64(1 << 63)
_FIRST_SLOTS = 1 << 12
_MAX_LOAD = 0.6


def keys_of_texts(texts: pl.Series, rules: CellRules = PLAIN_CELLS, *, unquote: bool = False) -> tuple[Keys, pl.DataFrame | None]:
    """Keys uint64 (n,) of the canonical texts, 0 where missing; and `long_texts` of the same texts."""
    from ctrlab.data.encoding.compiled.cells import clean_keys_of

    array = texts.fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest())
    keys = clean_keys_of(*_buffers(array), rules.trim, unquote, *words_of(rules))
    return keys, long_texts(keys, texts, rules, unquote=unquote)


def long_texts(keys: Keys, texts: pl.Series, rules: CellRules = PLAIN_CELLS, *, unquote: bool = False) -> pl.DataFrame | None:
    """Columns `key` and `text` of the canonical texts whose key is a hash, each key once; None if there are none."""
    rows = np.flatnonzero(keys >= _LONG)
    if not len(rows):
        return None
    found, first = np.unique(keys[rows], return_index=True)
    return pl.DataFrame({"key": found, "text": canonical(texts.gather(rows[first]), rules, unquote=unquote).alias("text")})


def words_of(rules: CellRules) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """The words for "missing" as the compiled loops read them."""
    return _word_table(rules.words)


@functools.lru_cache(maxsize=16)
def _word_table(words: frozenset[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    from ctrlab.data.encoding.compiled.cells import word_table

    table: tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]] = word_table(words)
    return table


def count_distinct(cells: ParsedCells, min_count: int, max_distinct: int = MAX_DISTINCT) -> tuple[Keys, NDArray[np.int64]]:
    """The keys that occur at least `min_count` times in the training rows, unordered, and their counts.

    Args:
        max_distinct: size limit of the hash table; of more keys, parts are counted in separate passes over `cells`.
    """
    part_bits = 0
    parts: list[tuple[Keys, NDArray[np.int64]]] = []
    while len(parts) < 1 << part_bits:
        counted = _count_part(cells, min_count, max_distinct, part_bits, len(parts))
        if counted is None:
            part_bits, parts = part_bits + 1, []
        else:
            parts.append(counted)
    return np.concatenate([keys for keys, _ in parts]), np.concatenate([counts for _, counts in parts])


def _count_part(
    cells: ParsedCells, min_count: int, max_distinct: int, part_bits: int, part: int
) -> tuple[Keys, NDArray[np.int64]] | None:
    """Counts of one part of the keys; None if the part has more than `max_distinct` keys."""
    from ctrlab.data.encoding.compiled.keys import count_keys

    table, used = np.zeros((_FIRST_SLOTS, 2), np.uint64), 0
    for keys, train in cells.blocks():
        table = _with_room(table, used, len(keys))
        used = int(count_keys(keys, train, part_bits, part, used, table))
        if used > max_distinct:
            return None
    kept = table[(table[:, 0] != 0) & (table[:, 1] >= min_count)]
    return kept[:, 0].copy(), kept[:, 1].astype(np.int64)


def _with_room(table: NDArray[np.uint64], used: int, more: int) -> NDArray[np.uint64]:
    # A block rarely has as many new keys as rows, but probing a full table would never end.
    from ctrlab.data.encoding.compiled.keys import insert_keys

    slots = len(table)
    while used + more > _MAX_LOAD * slots:
        slots *= 2
    if slots == len(table):
        return table
    grown, held = np.zeros((slots, 2), np.uint64), table[table[:, 0] != 0]
    insert_keys(held[:, 0], held[:, 1], grown)
    return grown


def order_by_count(keys: Keys, counts: NDArray[np.int64], cells: ParsedCells) -> tuple[Keys, pl.Series]:
    """Keys and their texts by falling count, equal counts in the byte order of the text."""
    if (keys >= _LONG).any():
        table = pl.DataFrame({"key": keys, "count": counts, "text": _texts_with_long(keys, cells)})
        table = table.sort(["count", "text"], descending=[True, False])
        return table["key"].to_numpy(), table["text"]
    # Byte-swapped (first byte most significant), short keys sort like their texts. Most keys of a large vocabulary occur once.
    once = counts == 1
    words = keys.byteswap()
    frequent = words[~once][np.lexsort((words[~once], -counts[~once]))]
    ordered = np.concatenate([frequent, np.sort(words[once])]).byteswap()
    return ordered, _texts_of(ordered)


def merge_booleans(keys: Keys, counts: NDArray[np.int64]) -> tuple[Keys, NDArray[np.int64]]:
    """Count the spellings of true and false as one key each, the most frequent, if the column holds nothing else."""
    if not 2 <= len(keys) <= len(_BOOLEANS) or not set(keys.tolist()) <= set(_BOOLEAN_KEYS):
        return keys, counts
    merged: dict[str, tuple[int, int, int]] = {}
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        meaning = _BOOLEANS[_BOOLEAN_KEYS[key]]
        most, total, kept = merged.get(meaning, (0, 0, key))
        merged[meaning] = (max(most, count), total + count, key if count > most else kept)
    return np.array([kept for _, _, kept in merged.values()], np.uint64), np.array([total for _, total, _ in merged.values()])


def boolean_aliases(vocabulary: pl.Series) -> dict[str, str]:
    """The other spellings of each text of a vocabulary that holds spellings of true and false only: files differ in them."""
    if not 0 < len(vocabulary) <= 2 or not set(vocabulary) <= set(_BOOLEANS):
        return {}
    spelled = {_BOOLEANS[text]: text for text in vocabulary}
    return {text: spelled[meaning] for text, meaning in _BOOLEANS.items() if meaning in spelled and text not in spelled.values()}


def key_aliases(aliases: dict[str, str]) -> dict[int, int]:
    """`boolean_aliases` as keys."""
    return {_short_key(text): _short_key(same) for text, same in aliases.items()}


def _short_key(text: str) -> int:
    return int.from_bytes(text.encode(), "little")


#: Spellings of true and false that unite where a column holds nothing else, and their keys.
_BOOLEANS = {
    way: meaning for meaning, ways in {"1": "1 true True TRUE", "0": "0 false False FALSE"}.items() for way in ways.split()
}
_BOOLEAN_KEYS = {_short_key(text): text for text in _BOOLEANS}


def id_table(keys: Keys, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash table from key to id."""
    from ctrlab.data.encoding.compiled.keys import insert_keys

    table = _with_room(np.zeros((_FIRST_SLOTS, 2), np.uint64), 0, len(keys))
    insert_keys(keys, ids, table)
    return table


def _texts_of(keys: Keys) -> pl.Series:
    """The texts of keys that are not hashes."""
    from ctrlab.data.encoding.compiled.keys import texts_of

    offsets, text = texts_of(keys)
    return arrow_texts(offsets, text)


def arrow_texts(offsets: NDArray[np.int64], text: NDArray[np.uint8]) -> pl.Series:
    """A String series from Arrow buffers: offsets int64 (n + 1,) and UTF-8 bytes."""
    array = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series


def _texts_with_long(keys: Keys, cells: ParsedCells) -> pl.Series:
    is_long = keys >= _LONG
    wanted = pl.DataFrame({"key": np.unique(keys[is_long])})
    found = [frame.join(wanted, on="key", how="semi") for frame in cells.texts()]
    texts = pl.concat(found).unique("key", keep="first", maintain_order=True)
    short = pl.DataFrame({"key": keys[~is_long], "text": _texts_of(keys[~is_long])})
    frame = pl.DataFrame({"key": keys}).join(pl.concat([short, texts]), on="key", how="left", maintain_order="left")
    return frame["text"]


def _buffers(array: pa.LargeStringArray) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    _, offsets, text = array.buffers()
    held = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1] if len(array) else np.zeros(1, np.int64)
    return held, np.frombuffer(text, np.uint8) if text is not None and text.size else np.zeros(1, np.uint8)


class RecentHashes:
    """A direct-mapped cache of recently seen hashes, so that the texts of frequent ones are not collected again."""

    def __init__(self) -> None:
        self._recent = np.zeros(1 << 14, np.uint64)

    def unseen(self, keys: Keys) -> NDArray[np.intp]:
        """One row index for each hash among the keys that is not in the cache; adds those hashes to the cache."""
        rows = np.flatnonzero(keys >= _LONG)
        if not len(rows):
            return rows
        rows = rows[self._recent[keys[rows] % np.uint64(len(self._recent))] != keys[rows]]
        hashes, first = np.unique(keys[rows], return_index=True)
        self._recent[hashes % np.uint64(len(self._recent))] = hashes
        new: NDArray[np.intp] = rows[first]
        return new
