"""Detects list-valued columns and how their elements are written."""

import polars as pl

from ctrlab.data.tables.cells import canonical
from ctrlab.data.tables.list_cells import BRACKETS, Notation, all_elements

#: Separators that are tried; slashes also occur in paths.
SEPARATORS = ("^", "|", ";")
#: Separators that are tried where every element looks like an id: commas and blanks also occur in plain text.
ID_SEPARATORS = (",", " ")
#: Longest list that is proposed; the user may set a larger length.
MAX_LENGTH = 50
_SAMPLE_ROWS = 20_000
#: Least share of cells with a separator, and least mean count of a distinct element: elements of lists recur.
_SEPARATED_SHARE, _MEAN_COUNT = 0.3, 2.0
_NEARLY_ALL = 0.99
_ID = r"^[A-Za-z_-]{0,3}\d+$"


def elements_of(texts: pl.Series, notation: Notation) -> pl.Series:
    """All canonical elements of all lists, without missing ones."""
    return canonical(all_elements(notation.split(texts.drop_nulls())), unquote=True).drop_nulls()


def find_notation(texts: pl.Series) -> Notation | None:
    """How the lists of a column are written; None if the cells are not lists.

    Between separators, elements recur and lists differ in length; in brackets, nearly every cell is a list.
    """
    head = texts.head(_SAMPLE_ROWS)
    if len(head) and (bracketed := _in_brackets(head)):
        return bracketed
    ids = (separator for separator in ID_SEPARATORS if _separates(separator, head, _ID))
    return next((Notation(one) for one in (*(s for s in SEPARATORS if _separates(s, head)), *ids)), None)


def usual_length(texts: pl.Series, notation: Notation) -> int:
    """The 99th percentile of the lists' lengths, 1 to `MAX_LENGTH`."""
    lengths = notation.split(texts.drop_nulls()).list.len()
    return int(min(MAX_LENGTH, max(1, lengths.quantile(0.99, "higher") or 1)))


def overlap(elements: pl.Series, values: pl.Series) -> float:
    """Jaccard index of the two sets of values."""
    first, second = elements.unique(), values.drop_nulls().unique()
    both = int(first.is_in(second.implode()).sum())
    return both / max(1, len(first) + len(second) - both)


def _in_brackets(texts: pl.Series) -> Notation | None:
    cells = canonical(texts).drop_nulls()
    lists = cells.filter(cells.str.contains(BRACKETS))
    if len(lists) < _NEARLY_ALL * len(cells) or not len(cells):
        return None
    # A number in parentheses is a negative number, a word in them is a word.
    several = lists.str.contains(r"[^\s\[({][\s,]+[^\s\])},]")
    if not several.any() and lists.str.contains(r"^\s*\(").all():
        return None
    commas = lists.filter(several).str.contains(",", literal=True)
    return Notation(list_format="json" if 2 * int(commas.sum()) >= len(commas) else "numpy")


def _separates(separator: str, texts: pl.Series, pattern: str | None = None) -> bool:
    counts = texts.str.count_matches(separator, literal=True)
    if len(texts) == 0 or (counts > 0).sum() < _SEPARATED_SHARE * len(texts) or counts.n_unique() < 3:
        return False
    elements = texts.str.split(separator).explode()
    stripped = elements.str.strip_chars(" \"'")
    if pattern:
        clean = stripped.str.contains(pattern)
    else:  # a semicolon and a blank also occur in plain text
        clean = (stripped != "") & ((separator != ";") | (elements == elements.str.strip_chars()))
    elements = stripped
    return clean.sum() > _NEARLY_ALL * len(elements) and len(elements) >= _MEAN_COUNT * elements.n_unique()
