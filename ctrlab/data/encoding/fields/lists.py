"""Columns whose cells hold several values: what a person did before, the genres of a film."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.fields.base import MISSING_CODE, Cells, Field, Ids, Mask, Reading
from ctrlab.data.encoding.fields.text import TextField
from ctrlab.data.schema import PADDING_ID
from ctrlab.data.tables.reader import LIST_SEPARATOR


class ListField(Field):
    """A list of ids a row: its elements in their order, the last `max_length` of them, then padding.

    The last are kept because behaviour lists are written oldest first. Empty elements are no elements.

    separator: what stands between two elements; None for lists of a Parquet file.
    shares: the categorical field whose vocabulary is taken, which that field's own training cells alone decide: a list added
        to a dataset does not change the ids of its items. None for a vocabulary of its own, by falling count of the elements
        that are kept in the training rows.
    """

    gives = "lists"
    reads = "texts"
    kept_dtype = np.uint64

    def __init__(
        self, name: str, column: str, min_count: int, separator: str | None, max_length: int, shares: str | None
    ) -> None:
        super().__init__(name, column)
        self.separator, self.max_length, self.shares = separator, max_length, shares
        self._elements = TextField(name, column, min_count)

    @property
    def width(self) -> int:
        return self.max_length

    @property
    def field_dim(self) -> int:
        return self._elements.field_dim

    @property
    def vocabulary(self) -> pl.Series:
        """Texts in the order of their ids."""
        return self._elements.vocabulary

    def share_with(self, field: TextField) -> None:
        """Take `field`'s vocabulary; must come before that field is fitted."""
        self._elements = field

    def read(self, texts: pl.Series) -> Reading:
        elements, rows, places = self._split(texts)
        reading = self._elements.read(elements)
        return reading._replace(kept=self._padded(reading.kept, rows, places, len(texts), MISSING_CODE))

    def fit(self, cells: Cells) -> None:
        if not self.shares:
            self._elements.fit(_Elements(cells))

    def encode(self, kept: NDArray[np.uint64]) -> Ids:
        return self._elements.encode(kept)  # a missing element's id is PADDING_ID

    def transform(self, texts: pl.Series) -> Ids:
        elements, rows, places = self._split(texts)
        return self._padded(self._elements.transform(elements), rows, places, len(texts), PADDING_ID)

    def state(self) -> dict[str, Any]:
        own = {"separator": self.separator, "max_length": self.max_length, "shares": self.shares}
        return {"name": self.name, "column": self.column, "min_count": self._elements.min_count, **own}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        return cls(*(state[key] for key in ("name", "column", "min_count", "separator", "max_length", "shares")))

    def settle(self, vocabulary: pl.Series) -> None:
        """Fix the vocabulary, unless it is another field's."""
        if not self.shares:
            self._elements.settle(vocabulary)

    def forget(self) -> None:
        """As of `TextField`; a shared vocabulary is its field's to forget."""
        if not self.shares:
            self._elements.forget()

    def _split(self, texts: pl.Series) -> tuple[pl.Series, NDArray[np.intp], NDArray[np.intp]]:
        """The elements of all lists, with the row and the place within its list of each."""
        cells = texts.fill_null("").str.split(self.separator or LIST_SEPARATOR)
        kept = cells.list.eval(pl.element().filter(pl.element() != "")).list.tail(self.max_length)
        lengths = kept.list.len().to_numpy().astype(np.intp)
        rows = np.repeat(np.arange(len(texts)), lengths)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return kept.filter(kept.list.len() > 0).explode().cast(pl.String), rows, places

    def _padded(
        self, flat: NDArray[Any], rows: NDArray[np.intp], places: NDArray[np.intp], num_rows: int, padding: int
    ) -> NDArray[Any]:
        padded = np.full((num_rows, self.max_length), padding, flat.dtype)
        padded[rows, places] = flat
        return padded


class _Elements:
    """A list's cells as a text field counts them: element by element."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def blocks(self) -> Iterator[tuple[NDArray[Any], Mask]]:
        for kept, train in self._cells.blocks():
            yield kept.reshape(-1), np.repeat(train, kept.shape[1])

    def texts(self) -> Iterator[pl.DataFrame]:
        return self._cells.texts()
