"""Infers the role of one column from its cells, and from the label where the cells leave it open."""

import re
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.configs import Transform
from ctrlab.data.tables.columns import NEARLY_ALL, NUM_EXAMPLES, Cells, ColumnInspection
from ctrlab.data.tables.evidence import Evidence, LabelSample, auc_alone, evidence_of
from ctrlab.data.tables.inspect_lists import elements_of, find_notation, usual_length
from ctrlab.data.tables.list_cells import Notation
from ctrlab.data.tables.notes import Note
from ctrlab.data.tables.timestamps import find_formats, parse_timestamps

#: Integers with at most this many distinct values are codes rather than quantities, unless they are small counts.
_FEW_NUMBERS = 20
#: Up to this many ids each have rows enough to be learned, whatever they mean: no doubt about them is shown.
_FEW_IDS = 100
#: Counts start at or below this number.
_SMALL_NUMBER = 10
#: Identifiers: at least this share of distinct values, in a table of at least this many rows.
_IDENTIFIER_SHARE, _IDENTIFIER_ROWS = 0.95, 200
#: A field with more values than this gets a minimum count of 2, so that its out-of-vocabulary id is trained.
MANY_VALUES = 1000
_ID_NAME = re.compile(r"(?i:(^|_)(id|uid|user|item|code|zip|cat|category|type)(_|$|\d))|[a-z]Id$")
_INDEX_NAME = re.compile(r"(?i)^(unnamed: ?\d+(_level_\d+)?|__index_level_\d+__|level_\d+|index|row_?(id|num|number|nr|no)?|)$")
#: Share of rows whose number is one more than that of the row before, in a column of row numbers.
_CONSECUTIVE = 0.99
#: Cells whose decimals are looked at.
_WRITTEN = 20_000
#: Numbers that stand for a missing cell, and the least share of the rows that have one.
_STAND_IN, _FREQUENT = re.compile(r"^-?(9{2,10}|32768|2147483648)$"), 0.005
#: Whole numbers from here on are not exact in float64.
_INEXACT = 2.0**53
#: A column that alone reaches this AUC is likely known only after the click.
LEAK_AUC = 0.95


class Finding(NamedTuple):
    """A column with its role, notes about it, and words found in it that mean a missing cell."""

    column: ColumnInspection
    notes: tuple[Note, ...] = ()
    missing_words: tuple[str, ...] = ()


def inspect_column(cells: Cells, sample: LabelSample | None) -> Finding:
    """Role and settings of a column of texts that is not the label.

    Args:
        sample: rows with a label; None if there are too few to decide by.
    """
    found = _inspected(cells, sample)
    if found.column.role not in ("categorical", "ignore") or not (words := cells.words_among_digits):
        return found
    without = _inspected(cells.without(tuple(word for word, _ in words)), sample)
    if without.column.role not in ("numeric", "timestamp"):
        return found
    held = " and ".join(f"{word!r} in {rows:,}" for word, rows in words)
    what = "numbers" if without.column.role == "numeric" else "times"
    text = f"{cells.name} holds {what}, and {held} of {len(cells.raw):,} rows: taken as missing cells"
    note = Note("missing_words", cells.name, text, "warning", f"set the role of {cells.name} to categorical if they are values")
    return Finding(without.column, (*without.notes, note), tuple(word for word, _ in words))


def _inspected(cells: Cells, sample: LabelSample | None) -> Finding:
    facts, name = cells.facts, cells.name
    if facts["distinct"] == 0:
        return Finding(ColumnInspection(**facts, role="ignore", reason="every cell is empty"))
    if cells.numbers is None and (notation := find_notation(cells.raw.drop_nulls())):
        return inspect_list(cells.raw, notation, sample)
    if facts["distinct"] == 1:
        reason = f"every row has the same value, {facts['examples'][0]}"
        return Finding(ColumnInspection(**facts, role="ignore", reason=reason))
    notes = (*_float_ids(cells), *_leak(cells, sample))
    if formats := find_formats(cells.texts, name):
        return _timestamp(cells, formats, notes)
    if index := _index(cells):
        return Finding(ColumnInspection(**facts, role="ignore", reason=index), notes)
    column, doubt = _numeric_or_categorical(cells, sample)
    return Finding(column, (*notes, *doubt))


def inspect_list(raw: pl.Series, notation: Notation, sample: LabelSample | None) -> Finding:
    """A column of lists."""
    elements = elements_of(raw, notation)
    counts = elements.alias("text").value_counts(sort=True)
    what = f"texts of several elements with {notation.separator} between them" if notation.separator else "holds lists"
    column = ColumnInspection(
        name=raw.name,
        role="list" if len(counts) else "ignore",
        reason=f"{what}; {len(counts):,} different elements" if len(counts) else "every list is empty",
        distinct=len(counts),
        missing_share=raw.null_count() / max(1, len(raw)),
        examples=tuple(counts["text"].head(NUM_EXAMPLES).to_list()),
        min_count=2 if len(counts) > MANY_VALUES else 1,
        separator=notation.separator,
        list_format=notation.list_format,
        max_length=usual_length(raw, notation),
    )
    if sample is None or column.role == "ignore":
        return Finding(column)
    # Lists that are filled or grow with the click.
    lengths = notation.split(raw.gather(sample.rows)).list.len().to_numpy().astype(np.int64)
    return Finding(column, leak_note(raw.name, sample.auc(sample.predicted(lengths))))


def _timestamp(cells: Cells, formats: tuple[str, ...], notes: tuple[Note, ...]) -> Finding:
    first = parse_timestamps(cells.present.head(3), formats[0])
    examples = tuple(time.isoformat(sep=" ") for time in first.drop_nulls())
    facts = cells.facts | {"timestamp_format": formats[0], "time_examples": examples}
    column = ColumnInspection(**facts, role="timestamp", reason=f"holds times ({formats[0]}), {examples[0]} first")
    if not {"dd/mm/yyyy", "mm/dd/yyyy"} <= set(formats):
        return Finding(column, notes)
    text = f"{cells.name} could be day/month or month/day; read as {formats[0]}, its first times are {', '.join(examples)}"
    remedy = f"if that is wrong, set the timestamp format of {cells.name} to {formats[1]}"
    return Finding(column, (*notes, Note("time_format", cells.name, text, "warning", remedy)))


def _numeric_or_categorical(cells: Cells, sample: LabelSample | None) -> tuple[ColumnInspection, tuple[Note, ...]]:
    facts, distinct, rows = cells.facts, cells.facts["distinct"], len(cells.present)
    reason, notes = _quantity(cells, sample) if cells.numbers is not None else (None, ())
    if reason:
        notes = (*_ambiguous_marks(cells), *_stand_in(cells), *notes)
        return ColumnInspection(**facts, role="numeric", reason=reason, transform=_transform(facts)), notes
    if rows >= _IDENTIFIER_ROWS and distinct >= _IDENTIFIER_SHARE * rows:
        reason = "nearly every row has a value of its own, as identifiers do"
        return ColumnInspection(**facts, role="ignore", reason=reason), notes
    what = "numbers that look like codes" if cells.numbers is not None else "texts"
    reason = f"{distinct:,} different values, {what}"
    return ColumnInspection(**facts, role="categorical", reason=reason, min_count=2 if distinct > MANY_VALUES else 1), notes


def _transform(facts: dict[str, Any]) -> Transform:
    # -1 is a usual code of a missing count.
    return "log" if facts["minimum"] >= -2 and facts["maximum"] > 100 else "standard"


def _quantity(cells: Cells, sample: LabelSample | None) -> tuple[str | None, tuple[Note, ...]]:
    """Why the numbers are quantities rather than codes, None if they are codes; and a note where the rows leave a doubt.

    Quantities have fractions, or are counts: they start near 0, and larger ones are rarer. Names of codes often contain "id".
    Where the cells leave it open, the label decides: integers are ids unless their order says most of what their values do.
    """
    numbers, facts = cells.numbers, cells.facts
    assert numbers is not None
    real = numbers[~np.isnan(numbers)]
    if bool((real != np.floor(real)).any()):
        return "numbers with fractions", ()
    if _has_decimals(cells):
        return "numbers with two decimals", ()
    if _ID_NAME.search(cells.name):
        return None, ()
    found = evidence_of(cells.texts, numbers, sample) if sample is not None else None
    if facts["distinct"] <= _FEW_NUMBERS:
        return ("small counts, whose order follows the label" if found and _few_counts(cells, found) else None), ()
    falls = facts["minimum"] <= _SMALL_NUMBER and _falling(cells) > 0.5
    # A few counts thin out towards their maximum; ids that are numbered by how often they occur use every number.
    thins = facts["distinct"] <= _FEW_IDS and facts["distinct"] < 0.9 * (facts["maximum"] - facts["minimum"] + 1)
    reason = _reason(facts["distinct"] > len(real) / 2, falls, found, sure=thins)
    return reason, _doubt(cells, reason, found)


def _has_decimals(cells: Cells) -> bool:
    """Whether the cells are written with two decimals, as amounts are; 12.0 is how whole numbers come out of floats."""
    written = cells.raw.filter(cells.texts.is_not_null()).head(_WRITTEN)
    return int(written.str.contains(r"\d[.,]\d{2}\D{0,4}$").sum()) >= NEARLY_ALL * len(written)


def _stand_in(cells: Cells) -> tuple[Note, ...]:
    """A warning of a number such as -999 that stands for a missing cell: frequent, and far from all others."""
    assert cells.numbers is not None
    for text, count in cells.counts.head(3).iter_rows():
        if not _STAND_IN.match(text) or count < _FREQUENT * len(cells.present):
            continue
        number, others = float(text), cells.numbers[~np.isnan(cells.numbers) & (cells.numbers != float(text))]
        if len(others) and (number < min(0.0, 3 * others.min()) or number > 3 * max(1.0, others.max())):
            where = f"in {count:,} rows, far from all others ({others.min():g} to {others.max():g})"
            written = cells.raw.filter(cells.texts == text)[0].strip()
            words = f"{cells.name} is {written} {where}: perhaps a missing cell"
            return (Note("stand_in", cells.name, words, "warning", f"add {written} to missing_words if so"),)
    return ()


def _reason(hardly_twice: bool, falls: bool, found: Evidence | None, *, sure: bool) -> str | None:
    if falls and (found is None or ((sure or found.z_number > 2) and not found.are_ids)):
        return "counts: small ones are common, large ones rare"
    if found is None:
        return "whole numbers, hardly any twice" if hardly_twice else None
    if found.is_quantity and (hardly_twice or found.z_ids < 0):
        return "whole numbers whose order follows the label"
    return None


def _few_counts(cells: Cells, found: Evidence) -> bool:
    """Whether few whole numbers are counts: 0 or 1 and up without large gaps, each rarer than the one before."""
    facts = cells.facts
    compact = facts["minimum"] in (0, 1) and facts["maximum"] <= 3 * facts["distinct"] and facts["distinct"] > 5
    return bool(compact and _falling(cells) > 0.9 and found.is_quantity)


def _falling(cells: Cells) -> float:
    """Minus the rank correlation of the frequent numbers with their counts: 1 if larger ones are always rarer."""
    frequent = cells.counts.head(50)
    return -_rank_correlation(frequent["text"].cast(pl.Float64, strict=False).fill_null(0.0), frequent["count"])


def _doubt(cells: Cells, reason: str | None, found: Evidence | None) -> tuple[Note, ...]:
    if found is None or cells.facts["distinct"] <= _FEW_IDS or (found.are_ids if reason is None else found.is_quantity):
        return ()
    facts = cells.facts
    text = (
        f"{cells.name} holds {facts['distinct']:,} whole numbers from {facts['minimum']:,.0f} to {facts['maximum']:,.0f}: as ids "
        f"they predict the label with an AUC of {found.auc_ids:.3f}, as numbers in order with {found.auc_number:.3f}; taken as "
        + ("a number" if reason else "ids")
    )
    other = "categorical, if these are ids" if reason else "numeric, if these count or measure something"
    return (Note("ids_or_numbers", cells.name, text, "info", f"set the role of {cells.name} to {other}"),)


def _ambiguous_marks(cells: Cells) -> tuple[Note, ...]:
    if len(cells.number_formats) < 2:
        return ()
    first, second = cells.number_formats[:2]
    text = f"every mark of {cells.name} stands before three digits ({cells.facts['examples'][0]}); read as {first}"
    remedy = f"if it is written as {second}, set the number format of {cells.name} to that"
    return (Note("number_format", cells.name, text, "warning", remedy),)


def _index(cells: Cells) -> str | None:
    """Why a column numbers the rows; None if it does not."""
    numbers = cells.numbers
    if numbers is None or np.isnan(numbers).any() or (numbers != np.floor(numbers)).any() or len(numbers) < 3:
        return None
    consecutive = len(numbers) >= _FEW_NUMBERS and float((np.diff(numbers) == 1).mean()) >= _CONSECUTIVE
    single = cells.facts["distinct"] >= _IDENTIFIER_SHARE * len(numbers)
    named = _INDEX_NAME.match(cells.name) or (cells.name == "column_1" and (np.diff(numbers) > 0).all())
    if consecutive and (single or named):  # parts of a table may each begin anew
        return "a row number: each row has one more than the row before"
    if named and single:
        return "a saved index: every row has a number of its own"
    return None


def _float_ids(cells: Cells) -> tuple[Note, ...]:
    """A warning of whole numbers above 2^53 that are written as floats: several ids have become one."""
    if cells.numbers is None or not np.nanmax(np.abs(cells.numbers)) >= _INEXACT:
        return ()
    floats = cells.raw.str.contains(r"^\s*[+-]?\d(\.\d+)?[eE]\+?\d+\s*$|\.0+\s*$").fill_null(False).to_numpy()
    lost = floats & (np.abs(np.nan_to_num(cells.numbers)) >= _INEXACT)
    if not lost.any():
        return ()
    example = cells.raw.filter(pl.Series(lost))[0]
    text = (
        f"{cells.name} holds whole numbers above 2^53 as floats in {lost.mean():.1%} of the rows ({example}): different ids have "
        "become one"
    )
    return (Note("float_ids", cells.name, text, "warning", f"save {cells.name} as int64 or text"),)


def _leak(cells: Cells, sample: LabelSample | None) -> tuple[Note, ...]:
    if sample is None:
        return ()
    auc = auc_alone(cells.texts, cells.numbers, sample)
    return leak_note(cells.name, auc)


def leak_note(name: str, auc: float) -> tuple[Note, ...]:
    """A warning if a column alone predicts the label too well."""
    if auc <= LEAK_AUC:
        return ()
    text = f"{name} alone predicts the label with an AUC of {auc:.3f}: likely the label in other words, or known after the click"
    return (Note("leak", name, text, "warning", f"ignore {name}"),)


def _rank_correlation(a: pl.Series, b: pl.Series) -> float:
    first: NDArray[np.float64] = a.rank().to_numpy()
    second: NDArray[np.float64] = b.cast(pl.Float64).rank().to_numpy()
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
