"""Lists in the cells of a text table: between separators, or in brackets as JSON, Python and NumPy print them."""

from typing import NamedTuple

import polars as pl

from ctrlab.data.configs import ListFormat
from ctrlab.data.tables.cells import unescaped
from ctrlab.data.tables.reader import LIST_SEPARATOR

_QUOTED = r"""\s*"(?:[^"\\]|\\.)*"|\s*'(?:[^'\\]|\\.)*'"""
_ELEMENTS: dict[ListFormat, str] = {"json": rf"{_QUOTED}|[^,]+", "numpy": rf"{_QUOTED}|[^\s,]+"}
_OPENING, _CLOSING = r"^\s*(?:set\(|(?:[A-Za-z_.]*\()?\s*[\[({])", r"[\])}]\s*(?:,\s*dtype=.*)?\)?\s*$"
#: A cell in brackets: a list, tuple or set, or NumPy's array([1, 2], dtype=int32).
BRACKETS = rf"(?s){_OPENING}.*{_CLOSING}"


class Notation(NamedTuple):
    """How the elements of a list are written.

    separator: between two elements; None with no list_format means the joined elements of a Parquet list.
    list_format: the notation of cells in brackets.
    """

    separator: str | None = None
    list_format: ListFormat | None = None

    def split(self, texts: pl.Series) -> pl.Series:
        """The elements of each cell, a series of lists of texts; blanks and quotes around the elements stay.

        >>> Notation(list_format="json").split(pl.Series(['["a, b", 3]', "[]"])).to_list()
        [['"a, b"', ' 3'], []]
        """
        if self.list_format is None:
            return texts.fill_null("").str.split(self.separator or LIST_SEPARATOR)
        inner = texts.fill_null("").str.replace(_OPENING, "").str.replace(_CLOSING, "")
        return inner.str.extract_all(_ELEMENTS[self.list_format])


def all_elements(lists: pl.Series) -> pl.Series:
    """The elements of all lists of `Notation.split`, one after another, with escapes resolved."""
    return unescaped(lists.filter(lists.list.len() > 0).explode().cast(pl.String))
