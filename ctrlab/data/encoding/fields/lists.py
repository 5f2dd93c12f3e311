"""List-valued columns: behaviour histories, the genres of a film."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.fields.base import MISSING_CODE, Field, Ids, Mask, ParsedCells, ParsedColumn
from ctrlab.data.encoding.fields.text import TextField
from ctrlab.data.schema import PADDING_ID
from ctrlab.data.tables.reader import LIST_SEPARATOR


class ListField(Field):
    """A list of ids per row: the last `max_length` elements in their original order, then padding.

    The last elements are kept because behaviour lists are written oldest first. Empty elements are dropped.

    separator: text between two elements; None for lists of a Parquet file.
    shares: name of the categorical field whose vocabulary the elements use. That vocabulary is fitted on the categorical field's
        own cells only, so adding a list to a dataset does not change the ids of its items. None: the list has its own vocabulary,
        by falling count of the elements within `max_length` in the training rows.
    """

    output = "lists"
    input = "texts"
    cell_dtype = np.uint64

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
        """Use `field`'s vocabulary. Call before that field is fitted."""
        self._elements = field

    def parse(self, texts: pl.Series) -> ParsedColumn:
        elements, rows, places = self._split(texts)
        parsed = self._elements.parse(elements)
        return parsed._replace(cells=self._padded(parsed.cells, rows, places, len(texts), MISSING_CODE))

    def fit(self, cells: ParsedCells) -> None:
        if not self.shares:
            self._elements.fit(_Elements(cells))

    def encode(self, cells: NDArray[np.uint64]) -> Ids:
        return self._elements.encode(cells)  # the id of a missing element is PADDING_ID

    def transform(self, texts: pl.Series) -> Ids:
        elements, rows, places = self._split(texts)
        return self._padded(self._elements.transform(elements), rows, places, len(texts), PADDING_ID)

    def state(self) -> dict[str, Any]:
        own = {"separator": self.separator, "max_length": self.max_length, "shares": self.shares}
        return {"name": self.name, "column": self.column, "min_count": self._elements.min_count, **own}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        return cls(*(state[key] for key in ("name", "column", "min_count", "separator", "max_length", "shares")))

    def set_vocabulary(self, vocabulary: pl.Series) -> None:
        """Set the vocabulary; ignored when the list shares another field's."""
        if not self.shares:
            self._elements.set_vocabulary(vocabulary)

    def release(self) -> None:
        """Free the vocabulary; ignored when the list shares another field's."""
        if not self.shares:
            self._elements.release()

    def _split(self, texts: pl.Series) -> tuple[pl.Series, NDArray[np.intp], NDArray[np.intp]]:
        """The elements of all lists, and for each its row and its position within the list."""
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
    """Parsed cells of a list field as single elements, as `TextField.fit` counts them."""

    def __init__(self, cells: ParsedCells) -> None:
        self._cells = cells

    def blocks(self) -> Iterator[tuple[NDArray[Any], Mask]]:
        for cells, train in self._cells.blocks():
            yield cells.reshape(-1), np.repeat(train, cells.shape[1])

    def texts(self) -> Iterator[pl.DataFrame]:
        return self._cells.texts()
