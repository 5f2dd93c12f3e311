"""From a raw column to a field: one class a kind of field, all with the same life.

    read(texts) -> Reading             what the field keeps of a block's cells: 64-bit keys, small whole numbers, or numbers
    fit(cells)                         settles the vocabulary or statistics from the training rows among all kept cells
    encode(kept) -> ids | values       kept cells to what a model reads
    transform(texts) -> ids | values   rows seen later, in one step

Cells, ids and values are (n,) for a plain field and (n, width) for a list.

The text of a cell is parsed once, in `read`. What is kept of it is small enough to lie in a file until the whole table is read,
a column a file, so that a vocabulary is settled with one column in hand whatever the size of the table.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID

#: Ids before the vocabulary's: out of vocabulary, missing.
NUM_RESERVED_IDS = max(OUT_OF_VOCABULARY_ID, MISSING_ID) + 1
#: What is kept of a missing cell of keys or small numbers.
MISSING_CODE = 0
#: Texts that say "no value here" in a numeric or time column, in lower case.
MISSING_WORDS = ("", "na", "n/a", "nan", "null", "none", "\\n", "?", "-", "inf", "-inf", "+inf", "infinity", "-infinity")

Ids = NDArray[np.int32]
Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Reading(NamedTuple):
    """What a field keeps of a block.

    kept: (n,) or (n, width), of the field's `kept_dtype`.
    unreadable: cells that were neither empty nor readable.
    texts: `key` UInt64 and `text` String of texts whose key is a hash; None where there are none.
    """

    kept: NDArray[Any]
    unreadable: int = 0
    texts: pl.DataFrame | None = None


class Cells(Protocol):
    """All kept cells of one field, to be gone through as often as needed."""

    def blocks(self) -> Iterator[tuple[NDArray[Any], Mask]]:
        """Kept cells of successive rows, and which of the rows are training rows."""
        ...

    def texts(self) -> Iterator[pl.DataFrame]:
        """The `texts` of all readings; a text may come more than once."""
        ...


class Field(ABC):
    """One field; see the module's docstring for its life.

    name: of the field. column: of the raw column it reads. unreadable: cells so far that were neither empty nor readable.
    """

    #: What the result is: ids (int32), values (float32), or a list of ids (int32).
    gives: ClassVar[Literal["ids", "values", "lists"]]
    #: What `read` can make do with: the text's key, its number, or only the text itself.
    reads: ClassVar[Literal["keys", "numbers", "texts"]]
    kept_dtype: ClassVar[type[np.generic]]

    def __init__(self, name: str, column: str) -> None:
        self.name, self.column = name, column
        self.unreadable = 0

    @property
    @abstractmethod
    def field_dim(self) -> int:
        """Number of ids, reserved ones included; 0 for a field of values."""

    @property
    def width(self) -> int:
        """Columns of what is kept and of the result."""
        return 1

    @abstractmethod
    def read(self, texts: pl.Series) -> Reading: ...

    @abstractmethod
    def fit(self, cells: Cells) -> None: ...

    @abstractmethod
    def encode(self, kept: NDArray[Any]) -> NDArray[Any]: ...

    def transform(self, texts: pl.Series) -> NDArray[Any]:
        return self.encode(self.read(texts).kept)

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything fitted, as JSON, but for a vocabulary of texts."""

    @classmethod
    @abstractmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""


class NumericField(Field):
    """A field that needs no more of a cell than its number."""

    reads = "numbers"

    @abstractmethod
    def keep(self, numbers: Numbers) -> NDArray[Any]:
        """What is kept of numbers float64 (n,), nan where missing."""


def shifted(codes: pl.Series, by: int, missing: int) -> Ids:
    """`codes + by` as int32 (n,), with `missing` for null."""
    ids: Ids = (codes.cast(pl.Int32) + by).fill_null(missing).to_numpy()
    return ids
