"""Categorical columns with a vocabulary of texts."""

from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.fields.base import NUM_RESERVED_IDS, Field, Ids, ParsedCells, ParsedColumn, shifted
from ctrlab.data.encoding.fields.vocabulary import Keys, count_distinct, id_table, keys_of_texts, order_by_count
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID


class TextField(Field):
    """A categorical field. Ids are assigned by falling count in the training rows, equal counts in the byte order of the text."""

    output = "ids"
    input = "keys"
    cell_dtype = np.uint64

    def __init__(self, name: str, column: str, min_count: int) -> None:
        super().__init__(name, column)
        self.min_count = min_count
        self.vocabulary = pl.Series(name, [], dtype=pl.String)
        self._table: NDArray[np.uint64] = np.zeros((1, 2), np.uint64)

    @property
    def field_dim(self) -> int:
        return NUM_RESERVED_IDS + len(self.vocabulary)

    def parse(self, texts: pl.Series) -> ParsedColumn:
        keys, long = keys_of_texts(texts)
        return ParsedColumn(keys, texts=long)

    def fit(self, cells: ParsedCells) -> None:
        keys, texts = order_by_count(*count_distinct(cells, self.min_count), cells)
        self._table = id_table(keys, NUM_RESERVED_IDS)
        self.set_vocabulary(texts)

    def encode(self, cells: Keys) -> Ids:
        from ctrlab.data.encoding.compiled.keys import look_up_ids

        ids: Ids = look_up_ids(cells.reshape(-1), MISSING_ID, OUT_OF_VOCABULARY_ID, self._table)
        return ids.reshape(cells.shape)

    def transform(self, texts: pl.Series) -> Ids:
        # Looked up by text: a loaded vocabulary has no hash table of keys, and serving does not need the compiled loops.
        ids = shifted(texts.cast(self._enum, strict=False).to_physical(), NUM_RESERVED_IDS, OUT_OF_VOCABULARY_ID)
        return np.where(texts.is_null().to_numpy(), np.int32(MISSING_ID), ids)

    def state(self) -> dict[str, Any]:
        return {"name": self.name, "column": self.column, "min_count": self.min_count}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        return cls(state["name"], state["column"], state["min_count"])

    def set_vocabulary(self, vocabulary: pl.Series) -> None:
        """Set the vocabulary: texts in the order of their ids."""
        self.vocabulary = vocabulary.alias(self.name)

    def release(self) -> None:
        """Free the vocabulary and the hash table that `encode` uses."""
        self.set_vocabulary(pl.Series([], dtype=pl.String))
        self._table = np.zeros((1, 2), np.uint64)

    @cached_property
    def _enum(self) -> pl.Enum:
        return pl.Enum(self.vocabulary)
