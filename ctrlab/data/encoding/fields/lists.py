"""List-valued columns: behaviour histories, the genres of a film."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.encoding.fields.base import MISSING_CODE, Field, Ids, Mask, ParsedCells, ParsedColumn
from ctrlab.data.encoding.fields.text import TextField
from ctrlab.data.encoding.fields.vocabulary import keys_of_texts
from ctrlab.data.schema import PADDING_ID
from ctrlab.data.tables.cells import PLAIN_CELLS, CellRules, canonical
from ctrlab.data.tables.list_cells import Notation, all_elements


class ListField(Field):
    """A list of ids per row: the last `max_length` elements in their original order, then padding.

    The last elements are kept because behaviour lists are written oldest first. Missing elements are dropped.

    notation: how the elements are written.
    shares: name of the categorical field whose vocabulary the elements use. That vocabulary is fitted on the categorical field's
        own cells only, so adding a list to a dataset does not change the ids of its items. None: the list has its own vocabulary,
        by falling count of the elements within `max_length` in the training rows.
    elements: the field of single elements, which has the vocabulary.
    """

    output = "lists"
    input = "texts"
    cell_dtype = np.uint64

    def __init__(
        self,
        name: str,
        column: str,
        min_count: int,
        notation: Notation,
        max_length: int,
        shares: str | None,
        rules: CellRules = PLAIN_CELLS,
    ) -> None:
        super().__init__(name, column, rules)
        self.notation, self.max_length, self.shares = notation, max_length, shares
        self.elements = TextField(name, column, min_count, rules)

    @property
    def width(self) -> int:
        return self.max_length

    @property
    def field_dim(self) -> int:
        return self.elements.field_dim

    @property
    def min_count(self) -> int:
        """The count that an element of the vocabulary has at least in the training rows."""
        return self.elements.min_count

    @property
    def vocabulary(self) -> pl.Series:
        """Texts in the order of their ids."""
        return self.elements.vocabulary

    def share_with(self, field: TextField) -> None:
        """Use `field`'s vocabulary. Call before that field is fitted."""
        self.elements = field

    def parse(self, texts: pl.Series) -> ParsedColumn:
        elements, rows = self._split(texts)
        keys, long = keys_of_texts(elements, self.rules, unquote=True)
        return ParsedColumn(self._padded(keys, keys != MISSING_CODE, rows, len(texts), MISSING_CODE), texts=long)

    def fit(self, cells: ParsedCells) -> None:
        if not self.shares:
            self.elements.fit(_Elements(cells))

    def encode(self, cells: NDArray[np.uint64]) -> Ids:
        return self.elements.encode(cells)  # the id of a missing element is PADDING_ID

    def transform(self, texts: pl.Series) -> Ids:
        elements, rows = self._split(texts)
        elements = canonical(elements, self.rules, unquote=True)
        ids = self.elements.ids_of(elements)
        return self._padded(ids, elements.is_not_null().to_numpy(), rows, len(texts), PADDING_ID)

    def state(self) -> dict[str, Any]:
        own: dict[str, Any] = {"separator": self.notation.separator, "max_length": self.max_length, "shares": self.shares}
        if self.notation.list_format:
            own["list_format"] = self.notation.list_format
        return {"name": self.name, "column": self.column, "min_count": self.elements.min_count, **own, **self.rules.state()}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        notation = Notation(state["separator"], state.get("list_format"))
        own = (state["min_count"], notation, state["max_length"], state["shares"])
        return cls(state["name"], state["column"], *own, CellRules.restore(state))

    def set_vocabulary(self, vocabulary: pl.Series) -> None:
        """Set the vocabulary; ignored when the list shares another field's."""
        if not self.shares:
            self.elements.set_vocabulary(vocabulary)

    def release(self) -> None:
        """Free the vocabulary; ignored when the list shares another field's."""
        if not self.shares:
            self.elements.release()

    def _split(self, texts: pl.Series) -> tuple[pl.Series, NDArray[np.intp]]:
        """The elements of all lists and the row of each, missing elements included."""
        lists = self.notation.split(texts)
        return all_elements(lists), np.repeat(np.arange(len(texts)), lists.list.len().to_numpy())

    def _padded(self, flat: NDArray[Any], present: Mask, rows: NDArray[np.intp], num_rows: int, padding: int) -> NDArray[Any]:
        """The last `max_length` present elements of each row, (num_rows, max_length)."""
        flat, rows = flat[present], rows[present]
        lengths = np.bincount(rows, minlength=num_rows)
        starts = np.cumsum(lengths) - np.minimum(lengths, self.max_length)
        places = np.arange(len(rows)) - starts[rows]
        kept = places >= 0
        padded = np.full((num_rows, self.max_length), padding, flat.dtype)
        padded[rows[kept], places[kept]] = flat[kept]
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
