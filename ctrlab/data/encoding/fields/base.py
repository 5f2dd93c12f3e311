"""Base classes of the fields: one class per kind of field, all with the same four steps.

    parse(texts) -> ParsedColumn       the cells of a block in compact form: 64-bit keys, small integers, or floats
    fit(cells)                         learns the vocabulary or the statistics from the training rows of all parsed cells
    encode(cells) -> ids | values      parsed cells to the model's input
    transform(texts) -> ids | values   parse and encode in one step, for rows seen later

Arrays are (n,) for a plain field and (n, width) for a list field.

The text of a cell is parsed only once. Parsed cells are small enough to be cached on disk, one file per field, until the whole
table has been read; a vocabulary is then fitted with a single column in memory, however large the table is.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID
from ctrlab.data.tables.cells import PLAIN_CELLS, CellRules
from ctrlab.data.tables.numbers import read_numbers

#: Reserved ids, before those of the vocabulary: out of vocabulary, missing.
NUM_RESERVED_IDS = max(OUT_OF_VOCABULARY_ID, MISSING_ID) + 1
#: The parsed form of a missing cell, in columns of keys or small integers.
MISSING_CODE = 0

Ids = NDArray[np.int32]
Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]


class ParsedColumn(NamedTuple):
    """One field's parsed cells of a block of rows.

    cells: (n,) or (n, width), of the field's `cell_dtype`.
    unreadable: number of cells that were neither empty nor readable.
    texts: columns `key` UInt64 and `text` String, for the texts whose key is a hash; None if there are none.
    """

    cells: NDArray[Any]
    unreadable: int = 0
    texts: pl.DataFrame | None = None


class ParsedCells(Protocol):
    """All parsed cells of one field. Can be iterated any number of times."""

    def blocks(self) -> Iterator[tuple[NDArray[Any], Mask]]:
        """Parsed cells of successive blocks of rows, and a mask of the training rows among them."""
        ...

    def texts(self) -> Iterator[pl.DataFrame]:
        """`ParsedColumn.texts` of the blocks; a text may occur more than once."""
        ...


class Field(ABC):
    """One field of the dataset; the module's docstring lists its steps.

    name: of the field. column: name of the raw column. rules: how its cells are read.
    unreadable: cells that were neither empty nor readable.
    """

    #: Kind of result: ids (int32), values (float32), or lists of ids (int32).
    output: ClassVar[Literal["ids", "values", "lists"]]
    #: The least that `parse` needs of a cell: the key of its text, its number, or the text itself.
    input: Literal["keys", "numbers", "texts"]
    cell_dtype: ClassVar[type[np.generic]]

    def __init__(self, name: str, column: str, rules: CellRules = PLAIN_CELLS) -> None:
        self.name, self.column, self.rules = name, column, rules
        self.unreadable = 0

    @property
    @abstractmethod
    def field_dim(self) -> int:
        """Number of ids, including the reserved ones; 0 for a field of values."""

    @property
    def width(self) -> int:
        """Number of columns of the parsed cells and of the result."""
        return 1

    @abstractmethod
    def parse(self, texts: pl.Series) -> ParsedColumn: ...

    @abstractmethod
    def fit(self, cells: ParsedCells) -> None: ...

    @abstractmethod
    def encode(self, cells: NDArray[Any]) -> NDArray[Any]: ...

    def transform(self, texts: pl.Series) -> NDArray[Any]:
        return self.encode(self.parse(texts).cells)

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The fitted state as JSON, without a vocabulary of texts."""

    @classmethod
    @abstractmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""


class NumericField(Field):
    """A field that only needs the number in each cell.

    Numbers in another notation are read from the text. So are all numbers if further words mean "missing": a number may be one.
    """

    def __init__(self, name: str, column: str, rules: CellRules = PLAIN_CELLS) -> None:
        super().__init__(name, column, rules)
        self.input = "numbers" if rules.number_format == "1234.5" and not rules.missing_words else "texts"

    def parse(self, texts: pl.Series) -> ParsedColumn:
        numbers, unreadable = read_numbers(texts, self.rules)
        return ParsedColumn(self.parse_numbers(numbers), unreadable)

    @abstractmethod
    def parse_numbers(self, numbers: Numbers) -> NDArray[Any]:
        """Parsed cells of numbers float64 (n,), NaN where missing."""


def shifted(codes: pl.Series, by: int, missing: int) -> Ids:
    """`codes + by` as int32 (n,), with `missing` for null."""
    ids: Ids = (codes.cast(pl.Int32) + by).fill_null(missing).to_numpy()
    return ids
