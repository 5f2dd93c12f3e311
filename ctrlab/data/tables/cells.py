"""The canonical text of a cell: without blanks at its ends, null where a word means "missing", 12 for 12.0, and 0 for -0.

`ctrlab.data.encoding.compiled.cells` does the same on bytes; a test compares the two.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import polars as pl

from ctrlab.data.configs import ColumnConfig, NumberFormat

#: Lower-case texts that mean "missing" in every role; `SourceConfig.missing_words` adds to them.
MISSING_WORDS = (
    "", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "null", "(null)", "<null>", "#null!", "none", "(none)",
    "nil", "\\n", "?", "-", "--", ".", "missing", "(missing)", "(blank)", "undefined", "inf", "-inf", "+inf", "infinity",
    "-infinity", "+infinity", "#value!", "#ref!", "#div/0!", "#num!", "#name?",
)  # fmt: skip
#: Characters that count as blanks at the ends of a cell.
BLANKS = " \t\r\n\v\f\xa0"
_WHOLE = re.compile(r"^([+-]?[0-9]+)\.0+$")
_MINUS_ZERO = re.compile(r"^-(0+)$")
#: Fewer cells than this are handled one by one, which is faster than a query.
_FEW = 64


@dataclass(frozen=True)
class CellRules:
    """How the cells of a column are read.

    trim: whether blanks at the ends of a text are removed. number_format: how numbers are written.
    missing_words: words that mean "missing" besides `MISSING_WORDS`.
    """

    trim: bool = True
    number_format: NumberFormat = "1234.5"
    missing_words: tuple[str, ...] = ()

    @classmethod
    def of(cls, column: ColumnConfig, missing_words: tuple[str, ...] = ()) -> Self:
        """The rules of a configured column of a source."""
        return cls(column.trim, column.number_format, tuple(missing_words))

    @cached_property
    def words(self) -> frozenset[str]:
        """All texts that mean "missing", in lower case and without blanks at their ends."""
        return frozenset(MISSING_WORDS) | {word.strip(BLANKS).lower() for word in self.missing_words}

    def state(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON: encoders of plain tables stay as they are."""
        values = {"trim": self.trim, "number_format": self.number_format, "missing_words": list(self.missing_words)}
        plain = {"trim": True, "number_format": "1234.5", "missing_words": []}
        changed = {name: value for name, value in values.items() if value != plain[name]}
        return {"cells": changed} if changed else {}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Self:
        """The inverse of `state`, which may stand among other entries."""
        values = state.get("cells", {})
        return cls(**values | {"missing_words": tuple(values.get("missing_words", ()))})


PLAIN_CELLS = CellRules()


def canonical(texts: pl.Series, rules: CellRules = PLAIN_CELLS, *, unquote: bool = False) -> pl.Series:
    """The canonical texts of cells; null where missing.

    Args:
        unquote: remove a pair of quotes around a text, as elements of lists have them.

    >>> canonical(pl.Series([" s6 ", "12.0", "N/A", "a b"])).to_list()
    ['s6', '12', None, 'a b']
    """
    if len(texts) < _FEW:
        cells = [None if text is None else canonical_text(text, rules, unquote=unquote) for text in texts]
        return pl.Series(texts.name, cells, dtype=pl.String)
    word = pl.col("text").str.strip_chars(BLANKS)
    kept = word if rules.trim else pl.col("text")
    if unquote:
        word = kept = word.str.replace(r'(?s)^"(.*)"$', "${1}").str.replace(r"(?s)^'(.*)'$", "${1}").str.strip_chars(BLANKS)
    missing = word.str.to_lowercase().is_in(list(rules.words))
    whole = kept.str.replace(r"^([+-]?[0-9]+)\.0+$", "${1}").str.replace(r"^-(0+)$", "${1}")
    return texts.alias("text").to_frame().select(pl.when(~missing).then(whole)).to_series().alias(texts.name)


def canonical_text(text: str, rules: CellRules = PLAIN_CELLS, *, unquote: bool = False) -> str | None:
    """The canonical form of one cell; None if it is missing."""
    word = text.strip(BLANKS)
    if unquote and len(word) >= 2 and word[0] == word[-1] and word[0] in "\"'":
        word = word[1:-1].strip(BLANKS)
    if word.lower() in rules.words:
        return None
    return _MINUS_ZERO.sub(r"\1", _WHOLE.sub(r"\1", word if rules.trim or unquote else text))


def is_missing(texts: pl.Series, rules: CellRules = PLAIN_CELLS) -> pl.Series:
    """Whether each cell is null or a word that means "missing", Boolean."""
    return texts.is_null() | texts.str.strip_chars(BLANKS).str.to_lowercase().is_in(list(rules.words))


def unescaped(elements: pl.Series) -> pl.Series:
    r"""Quoted elements of JSON or Python with their backslashes resolved: \" and \u00e9.

    >>> unescaped(pl.Series([r'"caf\u00e9"', "plain"])).to_list()
    ['"café"', 'plain']
    """
    escaped = elements.filter(elements.str.contains("\\", literal=True)).unique()
    return elements.replace({text: _resolved(text) for text in escaped.drop_nulls()}) if len(escaped) else elements


def _resolved(text: str) -> str:
    word = text.strip(BLANKS)
    quote, inner = word[:1], word[1:-1]
    if len(word) < 2 or quote not in "\"'" or word[-1] != quote:
        return text
    try:
        return quote + str(json.loads('"' + inner.replace("\\'", "'").replace('\\"', '"').replace('"', '\\"') + '"')) + quote
    except ValueError:
        return text
