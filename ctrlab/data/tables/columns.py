"""The facts of one inspected column: its cleaned cells, missing words, distinct values and numbers."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.configs import ListFormat, NumberFormat, Role, Transform
from ctrlab.data.tables.cells import CellRules, canonical
from ctrlab.data.tables.numbers import find_number_formats, read_numbers

#: A column counts as numeric if at least this share of its cells is.
NEARLY_ALL = 0.99
NUM_EXAMPLES = 5
#: Different words for "missing" that are shown.
_NUM_WORDS = 10
#: Words in a column of numbers that mean a missing cell: so few, each so often, among so many distinct numbers.
_FEW_WORDS, _RECURS, _MANY_NUMBERS = 3, 3, 20


@dataclass(frozen=True)
class ColumnInspection:
    """One column of the inspected rows.

    role: inferred role. reason: why, as half a sentence.
    distinct: number of distinct values, without missing cells. missing_share: share of missing cells, 0..1.
    missing_words: the words that count as missing, as they are written, with their counts; the most frequent first.
    examples: the most frequent values. minimum, maximum: of the numbers; None if the column is not numeric.
    time_examples: the first three times as they are read; empty if the column holds no times.
    min_count, transform, number_format, timestamp_format, separator, list_format, max_length, shares: settings of the draft.
    """

    name: str
    role: Role
    reason: str
    distinct: int
    missing_share: float
    examples: tuple[str, ...]
    missing_words: tuple[tuple[str, int], ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    time_examples: tuple[str, ...] = ()
    min_count: int = 1
    transform: Transform = "standard"
    number_format: NumberFormat = "1234.5"
    timestamp_format: str | None = None
    separator: str | None = None
    list_format: ListFormat | None = None
    max_length: int = 50
    shares: str | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, also from JSON."""
        words = tuple((word, count) for word, count in values["missing_words"])
        tuples = {name: tuple(values[name]) for name in ("examples", "time_examples")}
        return cls(**values | tuples | {"missing_words": words})


@dataclass(frozen=True)
class Cells:
    """The cells of a column.

    raw: as in the file. texts: canonical, null where missing. counts: distinct canonical texts and their counts, the most
    frequent first, columns `text` and `count`. rules: by which they were cleaned. missing_words: as in `ColumnInspection`.
    """

    raw: pl.Series
    texts: pl.Series
    counts: pl.DataFrame
    rules: CellRules
    missing_words: tuple[tuple[str, int], ...] = field(default=())

    @classmethod
    def of(cls, raw: pl.Series, rules: CellRules) -> Self:
        """Clean a column: each distinct text once."""
        found = raw.drop_nulls().alias("text").value_counts(sort=True)
        clean = canonical(found["text"], rules)
        if clean.null_count() == 0 and (clean == found["text"]).all():
            return cls(raw, raw, found, rules)
        words = found.filter(clean.is_null()).head(_NUM_WORDS)
        merged = (
            found.with_columns(text=clean).drop_nulls("text").group_by("text", maintain_order=True).agg(pl.col("count").sum())
        )
        texts = canonical(raw, rules)
        return cls(raw, texts, merged.sort("count", descending=True, maintain_order=True), rules, tuple(words.iter_rows()))

    def without(self, words: tuple[str, ...]) -> Self:
        """The cells with further words that mean a missing one."""
        return type(self).of(self.raw, replace(self.rules, missing_words=(*self.rules.missing_words, *words)))

    @property
    def words_among_digits(self) -> tuple[tuple[str, int], ...]:
        """A few words that recur in a column whose other cells hold digits, with their counts: they may mean a missing cell."""
        if len(self.counts) < _MANY_NUMBERS:
            return ()
        has_digit = self.counts["text"].str.contains(r"\d")
        words = self.counts.filter(~has_digit)
        if not 0 < len(words) <= _FEW_WORDS or words["count"].min() < _RECURS or 2 * words["count"].sum() > len(self.present):  # type: ignore[operator]
            return ()
        return tuple(words.iter_rows())

    @property
    def name(self) -> str:
        return self.raw.name

    @property
    def present(self) -> pl.Series:
        """The texts of cells that are not missing."""
        return self.texts.drop_nulls()

    @cached_property
    def number_formats(self) -> tuple[NumberFormat, ...]:
        """The notations in which nearly every present cell is a number, the likeliest first."""
        formats = find_number_formats(self.present)
        return formats if formats and self._share(formats[0]) >= NEARLY_ALL else ()

    @cached_property
    def numbers(self) -> NDArray[np.float64] | None:
        """All cells as numbers float64 (n,), NaN where missing; None if the column does not hold numbers."""
        return self._read(self.number_formats[0]) if self.number_formats else None

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The arguments of `ColumnInspection` that do not depend on the role."""
        facts: dict[str, Any] = {
            "name": self.name,
            "distinct": len(self.counts),
            "missing_share": self.texts.null_count() / max(1, len(self.texts)),
            "missing_words": self.missing_words,
            "examples": tuple(self.counts["text"].head(NUM_EXAMPLES).to_list()),
        }
        if self.numbers is not None and not np.isnan(self.numbers).all():
            facts |= {"minimum": float(np.nanmin(self.numbers)), "maximum": float(np.nanmax(self.numbers))}
            facts["number_format"] = self.number_formats[0]
        return facts

    def _read(self, number_format: NumberFormat) -> NDArray[np.float64]:
        return read_numbers(self.texts, CellRules(number_format=number_format))[0]

    def _share(self, number_format: NumberFormat) -> float:
        present = len(self.texts) - self.texts.null_count()
        return float((~np.isnan(self._read(number_format))).sum()) / max(1, present)
