"""Categorical columns."""

from typing import Any, Self

import numpy as np
import polars as pl

from ctrlab.data.fields.base import MISSING_CODE, NUM_RESERVED_IDS, Field, Ids, Mask, shifted
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID


class TextField(Field):
    """A categorical field: ids by falling count in the training rows, equal counts in the order of the text."""

    gives = "ids"
    has_codes = True

    def __init__(self, name: str, column: str, min_count: int) -> None:
        super().__init__(name, column)
        self.min_count = min_count
        self.vocabulary = pl.Series(name, [], dtype=pl.String)
        self._dtype = pl.Categorical(pl.Categories.random())
        # polars forgets the texts of a Categories object that no series uses.
        self._keep_alive = pl.Series([], dtype=self._dtype)
        self._counts = np.zeros(1024, np.int64)
        self._ids: Ids = np.empty(0, np.int32)

    @property
    def field_dim(self) -> int:
        return NUM_RESERVED_IDS + len(self.vocabulary)

    def observe(self, texts: pl.Series, train: Mask) -> Ids:
        array = self.codes_of(texts)
        largest = int(array.max(initial=0))
        if largest >= len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(2 * largest + 1 - len(self._counts), np.int64)])
        np.add.at(self._counts, array[train], 1)
        return array

    def codes_of(self, texts: pl.Series) -> Ids:
        """Provisional codes of texts that do not shape the field: elements of lists that share its ids."""
        return shifted(texts.cast(self._dtype).to_physical(), 1, MISSING_CODE)

    def finish(self) -> None:
        texts = self._dtype.categories.to_series()
        counts = np.zeros(len(texts), np.int64)
        seen = self._counts[1 : len(texts) + 1]
        counts[: len(seen)] = seen
        table = pl.DataFrame({"text": texts, "code": np.arange(1, len(texts) + 1), "count": counts})
        kept = table.filter(pl.col("count") >= self.min_count).sort(["count", "text"], descending=[True, False])
        self._ids = np.full(len(texts) + 1, OUT_OF_VOCABULARY_ID, np.int32)
        self._ids[MISSING_CODE] = MISSING_ID
        self._ids[kept["code"].to_numpy()] = np.arange(NUM_RESERVED_IDS, NUM_RESERVED_IDS + len(kept))
        self.settle(kept["text"])

    def finalize(self, codes: Ids) -> Ids:
        return self._ids[codes]

    def transform(self, texts: pl.Series) -> Ids:
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
        self._enum = pl.Enum(vocabulary)
        # The first-sight dictionary held every text of the file, training row or not; it is not needed again.
        self._keep_alive = pl.Series([], dtype=pl.String)
        self._counts = np.empty(0, np.int64)
