"""Categorical columns with a vocabulary of texts."""

from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.fields.base import NUM_RESERVED_IDS, Field, Ids, ParsedCells, ParsedColumn
from ctrlab.data.encoding.fields.vocabulary import (
    Keys,
    boolean_aliases,
    count_distinct,
    id_table,
    key_aliases,
    keys_of_texts,
    merge_booleans,
    order_by_count,
)
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID
from ctrlab.data.tables.cells import PLAIN_CELLS, CellRules, canonical


class TextField(Field):
    """A categorical field. Ids are assigned by falling count in the training rows, equal counts in the byte order of the text.

    vocabulary: texts in the order of their ids. aliases: {other spelling of true or false: the text of the vocabulary}.
    """

    output = "ids"
    input = "keys"
    cell_dtype = np.uint64

    def __init__(self, name: str, column: str, min_count: int, rules: CellRules = PLAIN_CELLS) -> None:
        super().__init__(name, column, rules)
        self.min_count = min_count
        self.vocabulary = pl.Series(name, [], dtype=pl.String)
        self.aliases: dict[str, str] = {}
        self._table: NDArray[np.uint64] | None = None

    @property
    def field_dim(self) -> int:
        return NUM_RESERVED_IDS + len(self.vocabulary)

    def parse(self, texts: pl.Series) -> ParsedColumn:
        keys, long = keys_of_texts(texts, self.rules)
        return ParsedColumn(keys, texts=long)

    def fit(self, cells: ParsedCells) -> None:
        counted = merge_booleans(*count_distinct(cells, self.min_count))
        keys, texts = order_by_count(*counted, cells)
        self.set_vocabulary(texts)
        self._table = self._table_of(keys)

    def encode(self, cells: Keys) -> Ids:
        from ctrlab.data.encoding.compiled.keys import look_up_ids

        if self._table is None:
            self._table = self._table_of_vocabulary()
        ids: Ids = look_up_ids(cells.reshape(-1), MISSING_ID, OUT_OF_VOCABULARY_ID, self._table)
        return ids.reshape(cells.shape)

    def transform(self, texts: pl.Series) -> Ids:
        return self.ids_of(canonical(texts, self.rules))

    def ids_of(self, texts: pl.Series) -> Ids:
        """Ids int32 (n,) of canonical texts."""
        # By text: a few rows are not worth the hash table of keys, nor loading the compiled loops.
        known = self._ids_by_text
        return np.fromiter((known.get(text, OUT_OF_VOCABULARY_ID) for text in texts.to_list()), np.int32, len(texts))

    def state(self) -> dict[str, Any]:
        return {"name": self.name, "column": self.column, "min_count": self.min_count, **self.rules.state()}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        return cls(state["name"], state["column"], state["min_count"], CellRules.restore(state))

    def set_vocabulary(self, vocabulary: pl.Series) -> None:
        """Set the vocabulary: texts in the order of their ids."""
        self.vocabulary = vocabulary.alias(self.name)
        self.aliases = boolean_aliases(vocabulary)
        self._table = None
        self.__dict__.pop("_ids_by_text", None)

    def release(self) -> None:
        """Free the vocabulary and the hash table that `encode` uses."""
        self.set_vocabulary(pl.Series([], dtype=pl.String))

    def _table_of_vocabulary(self) -> NDArray[np.uint64]:
        return self._table_of(keys_of_texts(self.vocabulary, self.rules)[0])

    def _table_of(self, keys: Keys) -> NDArray[np.uint64]:
        """Hash table from the keys of the vocabulary, in the order of their ids, and of its other spellings to ids."""
        aliases = key_aliases(self.aliases)
        ids = np.arange(NUM_RESERVED_IDS, NUM_RESERVED_IDS + len(keys))
        same = [int(ids[keys == key][0]) for key in aliases.values()]
        return id_table(np.append(keys, np.array(list(aliases), np.uint64)), np.append(ids, np.array(same, np.int64)))

    @cached_property
    def _ids_by_text(self) -> dict[str | None, int]:
        """{text: its id}, also of other spellings and of null; made once, for it takes longer than most look-ups."""
        ids: dict[str | None, int] = {text: NUM_RESERVED_IDS + place for place, text in enumerate(self.vocabulary.to_list())}
        return {None: MISSING_ID} | {alias: ids[text] for alias, text in self.aliases.items()} | ids
