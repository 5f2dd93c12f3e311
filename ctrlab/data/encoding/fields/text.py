"""Categorical columns."""

from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.fields.base import NUM_RESERVED_IDS, Cells, Field, Ids, Reading, shifted
from ctrlab.data.encoding.fields.vocabulary import Keys, count_distinct, in_order, keys_of_texts, table_of
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID


class TextField(Field):
    """A categorical field: ids by falling count in the training rows, equal counts in the order of the text."""

    gives = "ids"
    reads = "keys"
    kept_dtype = np.uint64

    def __init__(self, name: str, column: str, min_count: int) -> None:
        super().__init__(name, column)
        self.min_count = min_count
        self.vocabulary = pl.Series(name, [], dtype=pl.String)
        self._table: NDArray[np.uint64] = np.zeros((1, 2), np.uint64)

    @property
    def field_dim(self) -> int:
        return NUM_RESERVED_IDS + len(self.vocabulary)

    def read(self, texts: pl.Series) -> Reading:
        keys, long = keys_of_texts(texts)
        return Reading(keys, texts=long)

    def fit(self, cells: Cells) -> None:
        keys, texts = in_order(*count_distinct(cells, self.min_count), cells)
        self._table = table_of(keys, NUM_RESERVED_IDS)
        self.settle(texts)

    def encode(self, kept: Keys) -> Ids:
        from ctrlab.data.encoding.compiled.keys import look_up

        ids: Ids = look_up(kept.reshape(-1), MISSING_ID, OUT_OF_VOCABULARY_ID, self._table)
        return ids.reshape(kept.shape)

    def transform(self, texts: pl.Series) -> Ids:
        # By the texts themselves: a loaded vocabulary has no table of keys, and serving needs no compiled loops.
        ids = shifted(texts.cast(self._enum, strict=False).to_physical(), NUM_RESERVED_IDS, OUT_OF_VOCABULARY_ID)
        return np.where(texts.is_null().to_numpy(), np.int32(MISSING_ID), ids)

    def state(self) -> dict[str, Any]:
        return {"name": self.name, "column": self.column, "min_count": self.min_count}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        return cls(state["name"], state["column"], state["min_count"])

    def settle(self, vocabulary: pl.Series) -> None:
        """Fix the vocabulary: texts in the order of their ids."""
        self.vocabulary = vocabulary.alias(self.name)

    def forget(self) -> None:
        """Let go of the vocabulary and of what `encode` needs."""
        self.settle(pl.Series([], dtype=pl.String))
        self._table = np.zeros((1, 2), np.uint64)

    @cached_property
    def _enum(self) -> pl.Enum:
        return pl.Enum(self.vocabulary)
