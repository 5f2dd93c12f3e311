"""Inspects a raw table: infers the role of each column and which one is the label."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.configs import Role, SourceConfig, Transform
from ctrlab.data.tables.inspect_lists import elements_of, find_separator, overlap, usual_length
from ctrlab.data.tables.label_candidates import LabelCandidate, certain_label, find_label_candidates, label_question
from ctrlab.data.tables.notes import Note, notes_from
from ctrlab.data.tables.numbers import read_numbers
from ctrlab.data.tables.reader import open_table
from ctrlab.data.tables.timestamps import find_format
from ctrlab.errors import DataError

#: Largest number of cells that are inspected: of a very wide table fewer rows are read.
MAX_CELLS = 20_000_000
#: A column counts as numeric if at least this share of its cells is.
_NEARLY_ALL = 0.99
#: Integers with at most this many distinct values are codes rather than quantities.
_FEW_NUMBERS = 20
#: Counts start at or below the first number, and their maximum is the second times their median; codes often do neither.
_SMALL_NUMBER, _SKEW = 10, 8
#: Identifiers: at least this share of distinct values, in a table of at least this many rows.
_IDENTIFIER_SHARE, _IDENTIFIER_ROWS = 0.95, 200
#: A field with more values than this gets a minimum count of 2, so that its out-of-vocabulary id is trained.
_MANY_VALUES = 1000
_NUM_EXAMPLES = 5
#: A list shares the ids of a column if the Jaccard index of their values is at least this.
_SAME_VALUES = 0.5
_ID_NAME = re.compile(r"(?i:(^|_)(id|uid|user|item|code|zip|cat|category|type)(_|$|\d))|[a-z]Id$")


@dataclass(frozen=True)
class ColumnInspection:
    """One column of the inspected rows.

    role: inferred role. reason: why, as half a sentence.
    distinct: number of distinct values, without empty cells. missing_share: share of empty cells, 0..1.
    examples: the most frequent values. minimum, maximum: of the numbers; None if the column is not numeric.
    min_count, transform, timestamp_format, separator, max_length, shares: settings of the draft.
    """

    name: str
    role: Role
    reason: str
    distinct: int
    missing_share: float
    examples: tuple[str, ...]
    minimum: float | None = None
    maximum: float | None = None
    min_count: int = 1
    transform: Transform = "standard"
    timestamp_format: str | None = None
    separator: str | None = None
    max_length: int = 50
    shares: str | None = None


@dataclass(frozen=True)
class TableInspection:
    """The result of `inspect_table`.

    source: the source with the detected format, header, delimiter and names. columns: in the order of the file.
    rows: number of inspected rows. complete: whether these are all rows.
    label_candidates: columns that could be the label, the likeliest first, with the ways to read each.
    label: the candidate that is the label beyond doubt; None where a person must choose.
    ctr: share of clicks in the label; None if there is none.
    size_bytes: of the file on disk. notes: findings to show beside the columns.
    """

    source: SourceConfig
    columns: tuple[ColumnInspection, ...]
    rows: int
    complete: bool
    label_candidates: tuple[LabelCandidate, ...]
    label: str | None
    ctr: float | None
    size_bytes: int
    notes: tuple[Note, ...] = ()

    @property
    def column(self) -> dict[str, ColumnInspection]:
        """Columns by name."""
        return {column.name: column for column in self.columns}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        columns = [asdict(column) | {"examples": list(column.examples)} for column in self.columns]
        lists = {
            "columns": columns,
            "label_candidates": [found.to_dict() for found in self.label_candidates],
            "notes": [note.to_dict() for note in self.notes],
        }
        return asdict(self) | {"source": self.source.to_dict()} | lists

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        columns = tuple(ColumnInspection(**column | {"examples": tuple(column["examples"])}) for column in values["columns"])
        candidates = tuple(LabelCandidate.from_dict(found) for found in values["label_candidates"])
        own = {"source": SourceConfig.from_dict(values["source"]), "columns": columns, "notes": notes_from(values["notes"])}
        return cls(**values | own | {"label_candidates": candidates})


def inspect_table(source: SourceConfig, max_rows: int = 200_000, *, max_bytes: int | None = None) -> TableInspection:
    """Inspect the first rows of a raw table (of the first file, if there are several).

    Args:
        max_rows: rows to read; fewer in a table of hundreds of columns.
        max_bytes: refuse a larger file.

    Raises:
        DataError: the file cannot be read as a table.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
    >>> _ = path.write_text("click,site\\n" + "1,a\\n0,b\\n" * 50)
    >>> [(column.name, column.role) for column in inspect_table(SourceConfig(paths=(str(path),))).columns]
    [('click', 'label'), ('site', 'categorical')]
    """
    reader = open_table(source, max_bytes=max_bytes)
    wanted = max(1, min(max_rows, MAX_CELLS // max(1, len(reader.column_names))))
    blocks: list[pl.DataFrame] = []
    rows, complete = 0, True
    for block in reader.blocks():
        if rows + len(block) > wanted:
            blocks, complete = [*blocks, block.head(wanted - rows)], False
            break
        blocks.append(block)
        rows += len(block)
    if not blocks:
        raise DataError(f"{reader.path.name} has no rows; give a file with data")
    frame = pl.concat(blocks)
    layout = reader.layout
    candidates = find_label_candidates(frame, complete=complete)
    label = certain_label(candidates, headerless=not layout.header and not source.column_names)
    columns = tuple(
        _inspect_list(frame[name], None, "holds lists")
        if name in layout.list_columns
        else _inspect_column(frame[name], is_label_column=name == label)
        for name in frame.columns
    )
    columns = tuple(replace(column, shares=_shared_vocabulary(column, columns, frame)) for column in columns)
    text = layout.format != "parquet"
    known = source.replace(
        format=layout.format,
        header=layout.header if text else None,
        delimiter=layout.delimiter if text else None,
        column_names=layout.column_names if text and not layout.header else (),
    )
    reading = next((found.readings[0] for found in candidates if found.column == label), None)
    return TableInspection(
        source=known,
        columns=columns,
        rows=len(frame),
        complete=complete,
        label_candidates=candidates,
        label=label,
        ctr=reading.clicks / reading.rows if reading else None,
        size_bytes=reader.total_bytes,
        notes=_label_notes(candidates, label),
    )


def _label_notes(candidates: tuple[LabelCandidate, ...], label: str | None) -> tuple[Note, ...]:
    """The question which column is the label, or that a column was chosen that is not named like one."""
    if label is None:
        return (Note("label", None, label_question(candidates), "fault"),)
    chosen = next(found for found in candidates if found.column == label)
    if chosen.likeliness >= 2:
        return ()
    text = f"{label} was taken as the label, because it holds two usual values and no column is named like a label"
    return (Note("label", label, text, "warning", "choose another label if that is wrong"),)


def _inspect_column(texts: pl.Series, *, is_label_column: bool) -> ColumnInspection:
    present = texts.drop_nulls()
    counts = present.value_counts(sort=True)
    facts: dict[str, Any] = {
        "name": texts.name,
        "distinct": len(counts),
        "missing_share": 1 - len(present) / max(1, len(texts)),
        "examples": tuple(counts[texts.name].head(_NUM_EXAMPLES).to_list()),
    }
    if is_label_column:
        return ColumnInspection(**facts, role="label", reason=f"holds two values, {' and '.join(sorted(facts['examples']))}")
    if len(counts) == 0:
        return ColumnInspection(**facts, role="ignore", reason="every cell is empty")
    if separator := find_separator(present):
        return _inspect_list(texts, separator, f"texts of several elements with {separator} between them")
    numbers = read_numbers(present)[0]
    share = float((~np.isnan(numbers)).mean())
    if share >= _NEARLY_ALL:
        facts |= {"minimum": float(np.nanmin(numbers)), "maximum": float(np.nanmax(numbers))}
    if len(counts) == 1:
        return ColumnInspection(**facts, role="ignore", reason=f"every row has the same value, {counts[texts.name][0]}")
    if timestamp_format := find_format(present, texts.name):
        facts["timestamp_format"] = timestamp_format
        return ColumnInspection(**facts, role="timestamp", reason=f"holds times ({timestamp_format})")
    return _categorical_or_numeric(facts, counts, numbers if share >= _NEARLY_ALL else None, len(present))


def _inspect_list(texts: pl.Series, separator: str | None, what: str) -> ColumnInspection:
    elements = elements_of(texts, separator)
    counts = elements.value_counts(sort=True)
    return ColumnInspection(
        name=texts.name,
        role="list" if len(counts) else "ignore",
        reason=f"{what}; {len(counts):,} different elements" if len(counts) else "every list is empty",
        distinct=len(counts),
        missing_share=texts.null_count() / max(1, len(texts)),
        examples=tuple(counts[texts.name].head(_NUM_EXAMPLES).to_list()),
        min_count=2 if len(counts) > _MANY_VALUES else 1,
        separator=separator,
        max_length=usual_length(texts, separator),
    )


def _shared_vocabulary(column: ColumnInspection, others: tuple[ColumnInspection, ...], frame: pl.DataFrame) -> str | None:
    """The categorical column with the same values as a list's elements, for example the item column of a behaviour list."""
    if column.role != "list":
        return None
    elements = elements_of(frame[column.name], column.separator)
    overlaps = {other.name: overlap(elements, frame[other.name]) for other in others if other.role == "categorical"}
    best = max(overlaps, key=lambda name: overlaps[name], default=None)
    return best if best is not None and overlaps[best] >= _SAME_VALUES else None


def _categorical_or_numeric(
    facts: dict[str, Any], counts: pl.DataFrame, numbers: NDArray[np.float64] | None, rows: int
) -> ColumnInspection:
    if numbers is not None and (reason := _quantity(facts, counts, numbers)):
        skewed = facts["minimum"] >= 0 and facts["maximum"] > 100
        return ColumnInspection(**facts, role="numeric", reason=reason, transform="log" if skewed else "standard")
    distinct = facts["distinct"]
    if rows >= _IDENTIFIER_ROWS and distinct >= _IDENTIFIER_SHARE * rows:
        return ColumnInspection(**facts, role="ignore", reason="nearly every row has a value of its own, as identifiers do")
    what = "numbers that look like codes" if numbers is not None else "texts"
    reason = f"{distinct:,} different values, {what}"
    return ColumnInspection(**facts, role="categorical", reason=reason, min_count=2 if distinct > _MANY_VALUES else 1)


def _quantity(facts: dict[str, Any], counts: pl.DataFrame, numbers: NDArray[np.float64]) -> str | None:
    """Why the numbers are quantities rather than codes; None if they are codes.

    Quantities have fractions, or are counts: they start near 0, and larger ones are rarer. Names of codes often contain "id".
    """
    real = numbers[~np.isnan(numbers)]
    if bool((real != np.floor(real)).any()):
        return "numbers with fractions"
    if facts["distinct"] <= _FEW_NUMBERS or _ID_NAME.search(facts["name"]):
        return None
    if facts["minimum"] <= _SMALL_NUMBER:
        frequent = counts.head(50)
        falling = -_rank_correlation(pl.Series(read_numbers(frequent[:, 0])[0]), frequent[:, 1])
        if falling > 0.5 or facts["maximum"] > _SKEW * max(1.0, float(np.median(real))):
            return "counts: small ones are common, large ones rare"
    if facts["distinct"] > len(real) / 2:
        return "whole numbers, hardly any twice"
    return None


def _rank_correlation(a: pl.Series, b: pl.Series) -> float:
    ranks = (a.rank().to_numpy(), b.cast(pl.Float64).rank().to_numpy())
    if any(rank.std() == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])
