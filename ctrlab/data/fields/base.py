"""From a raw column to a field: one class a kind of field, all with the same life.

    observe(texts, train) -> codes     first sight of a block: provisional codes, to be kept until fitting is over;
                                       only rows where `train` is true may shape the field
    finish()                           the vocabulary or statistics are settled
    finalize(codes) -> ids | values    provisional codes to what a model reads
    transform(texts) -> ids | values   rows seen later, in one step

Codes, ids and values are (n,) for a plain field and (n, width) for a list.

The text of a cell is hashed and compared once, in `observe`; `finalize` is arithmetic on integers. That makes reading the file
once enough, although vocabularies are ordered by counts that are known only at its end.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID

#: Ids before the vocabulary's: out of vocabulary, missing.
NUM_RESERVED_IDS = max(OUT_OF_VOCABULARY_ID, MISSING_ID) + 1
#: Provisional code of a missing cell.
MISSING_CODE = 0
#: Texts that say "no value here" in a numeric or time column, in lower case.
MISSING_WORDS = ("", "na", "n/a", "nan", "null", "none", "\\n", "?", "-", "inf", "-inf", "+inf", "infinity", "-infinity")

Ids = NDArray[np.int32]
Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Field(ABC):
    """One field; see the module's docstring for its life.

    name: of the field. column: of the raw column it reads. unreadable: cells so far that were neither empty nor readable.
    """

    #: What the result is: ids (int32), values (float32), or a list of ids (int32).
    gives: ClassVar[Literal["ids", "values", "lists"]]
    #: Whether provisional codes are int32 or float64.
    has_codes: ClassVar[bool]

    def __init__(self, name: str, column: str) -> None:
        self.name, self.column = name, column
        self.unreadable = 0

    @property
    @abstractmethod
    def field_dim(self) -> int:
        """Number of ids, reserved ones included; 0 for a field of values."""

    @property
    def width(self) -> int:
        """Columns of codes and of the result."""
        return 1

    @abstractmethod
    def observe(self, texts: pl.Series, train: Mask) -> NDArray[Any]: ...

    @abstractmethod
    def finish(self) -> None: ...

    @abstractmethod
    def finalize(self, codes: NDArray[Any]) -> NDArray[Any]: ...

    @abstractmethod
    def transform(self, texts: pl.Series) -> NDArray[Any]: ...

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything fitted, as JSON, but for a vocabulary of texts."""

    @classmethod
    @abstractmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""


def shifted(codes: pl.Series, by: int, missing: int) -> Ids:
    """`codes + by` as int32 (n,), with `missing` for null."""
    ids: Ids = (codes.cast(pl.Int32) + by).fill_null(missing).to_numpy()
    return ids
