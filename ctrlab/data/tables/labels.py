"""Click labels: converts the usual spellings of two values to 0 and 1."""

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.errors import DataError

_WORDS = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0}
_ALLOWED = ({0.0, 1.0}, {-1.0, 1.0})
ALLOWED_TEXT = "0/1, -1/1, true/false or yes/no"


def label_value(text: str) -> float | None:
    """The number that a label text means; None if it is neither a number nor yes/no/true/false.

    >>> label_value("yes"), label_value("-1"), label_value("maybe")
    (1.0, -1.0, None)
    """
    word = text.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        return float(word)
    except ValueError:
        return None


def is_label(values: Iterable[str]) -> bool:
    """Whether the texts are exactly one pair of label values."""
    return {label_value(value) for value in values} in _ALLOWED


class LabelEncoder:
    """Encodes the label column block by block; keeps the distinct texts, because a third value may occur late in the file."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._texts: dict[str, float | None] = {}

    @property
    def seen(self) -> list[str]:
        """The distinct texts so far."""
        return list(self._texts)

    def restore(self, texts: Iterable[str]) -> None:
        """Continue with the `seen` texts of an interrupted pass."""
        self._texts = {text: label_value(text) for text in texts}

    def encode(self, labels: pl.Series, first_row: int) -> NDArray[np.uint8]:
        """Labels uint8 (n,), 1 = click.

        Raises:
            DataError: an empty cell, a third value, or values that are not labels.
        """
        if labels.null_count():
            row = first_row + int(labels.is_null().arg_max() or 0) + 1
            raise DataError(f"label {self.column!r} is empty in data row {row}; every row needs one, so fill or remove such rows")
        self._texts |= {text: label_value(text) for text in labels.unique().to_list()}
        values = set(self._texts.values())
        if None in values or not any(values <= pair for pair in _ALLOWED):
            raise DataError(self._fault())
        clicks = {text: value == 1.0 for text, value in self._texts.items()}
        return labels.replace_strict(clicks, return_dtype=pl.Boolean).to_numpy().astype(np.uint8)

    def _fault(self) -> str:
        # Several spellings of one value count once; a text that is not a number counts as itself.
        spellings = {value if value is not None else text: text for text, value in reversed(self._texts.items())}
        shown = ", ".join(sorted(spellings.values())[:5]) + (", ..." if len(spellings) > 5 else "")
        number = f"{len(spellings)} different values" if len(spellings) > 1 else "the value"
        advice = f"a label is {ALLOWED_TEXT}, so choose another column or convert this one"
        return f"label {self.column!r} holds {number} ({shown}); {advice}"
