"""Telling columns of lists from columns of single values, and what their elements are."""

import polars as pl

from ctrlab.data.tables.reader import LIST_SEPARATOR

#: Separators looked for; a comma or a space also stands in plain texts, a slash in paths.
SEPARATORS = ("^", "|", ";")
#: Longest list that is proposed; a person may ask for more.
MAX_LENGTH = 50
_LOOKED_AT = 20_000
#: Cells with several elements, at least; and elements a distinct value, at least: elements come again, or they are no values.
_SEVERAL, _AGAIN = 0.3, 2.0


def elements_of(texts: pl.Series, separator: str | None) -> pl.Series:
    """All elements of all lists, empty ones left out; `separator` None for lists of a Parquet file."""
    elements = texts.drop_nulls().str.split(separator or LIST_SEPARATOR).explode().cast(pl.String)
    return elements.filter(elements != "")


def find_separator(texts: pl.Series) -> str | None:
    """What unmistakably separates the elements of lists: they come again and again, and lists differ in length."""
    head = texts.head(_LOOKED_AT)
    return next((separator for separator in SEPARATORS if _separates(separator, head)), None)


def usual_length(texts: pl.Series, separator: str | None) -> int:
    """A length that holds 99 % of the lists whole, 1 to `MAX_LENGTH`."""
    lengths = texts.drop_nulls().str.count_matches(separator or LIST_SEPARATOR, literal=True) + 1
    return int(min(MAX_LENGTH, lengths.quantile(0.99, "higher") or 1))


def overlap(elements: pl.Series, values: pl.Series) -> float:
    """Values that occur in both, as a share of those that occur in either (Jaccard)."""
    first, second = elements.unique(), values.drop_nulls().unique()
    both = int(first.is_in(second.implode()).sum())
    return both / max(1, len(first) + len(second) - both)


def _separates(separator: str, texts: pl.Series) -> bool:
    counts = texts.str.count_matches(separator, literal=True)
    if len(texts) == 0 or (counts > 0).sum() < _SEVERAL * len(texts) or counts.n_unique() < 3:
        return False
    elements = texts.str.split(separator).explode()
    clean = (elements != "") & (elements == elements.str.strip_chars())
    return clean.sum() > 0.99 * len(elements) and len(elements) >= _AGAIN * elements.n_unique()
