"""Detects list-valued columns and their separators."""

import polars as pl

from ctrlab.data.tables.reader import LIST_SEPARATOR

#: Separators that are tried; commas and spaces also occur in plain text, slashes in paths.
SEPARATORS = ("^", "|", ";")
#: Longest list that is proposed; the user may set a larger length.
MAX_LENGTH = 50
_SAMPLE_ROWS = 20_000
#: Least share of cells with a separator, and least mean count of a distinct element: elements of lists recur.
_SEPARATED_SHARE, _MEAN_COUNT = 0.3, 2.0


def elements_of(texts: pl.Series, separator: str | None) -> pl.Series:
    """All elements of all lists, without empty ones. separator: None for lists of a Parquet file."""
    elements = texts.drop_nulls().str.split(separator or LIST_SEPARATOR).explode().cast(pl.String)
    return elements.filter(elements != "")


def find_separator(texts: pl.Series) -> str | None:
    """The separator of a list column: elements recur and lists differ in length. None if the cells are not lists."""
    head = texts.head(_SAMPLE_ROWS)
    return next((separator for separator in SEPARATORS if _separates(separator, head)), None)


def usual_length(texts: pl.Series, separator: str | None) -> int:
    """The 99th percentile of the lists' lengths, 1 to `MAX_LENGTH`."""
    lengths = texts.drop_nulls().str.count_matches(separator or LIST_SEPARATOR, literal=True) + 1
    return int(min(MAX_LENGTH, lengths.quantile(0.99, "higher") or 1))


def overlap(elements: pl.Series, values: pl.Series) -> float:
    """Jaccard index of the two sets of values."""
    first, second = elements.unique(), values.drop_nulls().unique()
    both = int(first.is_in(second.implode()).sum())
    return both / max(1, len(first) + len(second) - both)


def _separates(separator: str, texts: pl.Series) -> bool:
    counts = texts.str.count_matches(separator, literal=True)
    if len(texts) == 0 or (counts > 0).sum() < _SEPARATED_SHARE * len(texts) or counts.n_unique() < 3:
        return False
    elements = texts.str.split(separator).explode()
    clean = (elements != "") & (elements == elements.str.strip_chars())
    return clean.sum() > 0.99 * len(elements) and len(elements) >= _MEAN_COUNT * elements.n_unique()
