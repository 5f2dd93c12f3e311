"""Inspects a raw table: infers the role of each column and which one is the label."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.configs import ColumnConfig, SourceConfig
from ctrlab.data.tables.agreement import agreed
from ctrlab.data.tables.cells import CellRules, canonical, is_missing
from ctrlab.data.tables.columns import Cells, ColumnInspection
from ctrlab.data.tables.evidence import label_sample
from ctrlab.data.tables.inspect_lists import elements_of, overlap
from ctrlab.data.tables.label_candidates import LabelCandidate, certain_label, find_label_candidates, label_question
from ctrlab.data.tables.labels import is_positive, label_settings, label_value, reading_text
from ctrlab.data.tables.layout import Layout
from ctrlab.data.tables.list_cells import Notation
from ctrlab.data.tables.notes import Note, notes_from
from ctrlab.data.tables.numbers import read_numbers
from ctrlab.data.tables.reader import Table, open_table
from ctrlab.data.tables.roles import Finding, inspect_column, inspect_list
from ctrlab.data.tables.split_advice import time_split_notes
from ctrlab.errors import DataError

#: Largest number of cells that are inspected: of a very wide table fewer rows are read.
MAX_CELLS = 20_000_000
#: Rows kept to be shown, and the longest cell of them.
FIRST_ROWS, CELL_LENGTH = 8, 200
#: A list shares the ids of a column if the Jaccard index of their values is at least this.
_SAME_VALUES = 0.5


@dataclass(frozen=True)
class TableInspection:
    """The result of `inspect_table`.

    source: the source with the detected format, header, delimiter and names. columns: in the order of the file.
    rows: number of inspected rows. complete: whether these are all rows.
    label_candidates: columns that could be the label, the likeliest first, with the ways to read each.
    label: the label that was given, or the candidate that is the label beyond doubt; None where a person must choose.
    judged_by: the label and its reading by which roles and leaks were judged: the given or likeliest one; None if there is none.
    ctr: share of clicks in the label; None if there is none.
    size_bytes: of the file on disk. notes: findings to show beside the columns.
    first_rows: the first `FIRST_ROWS` rows, a cell a column, cut to `CELL_LENGTH` characters.
    """

    source: SourceConfig
    columns: tuple[ColumnInspection, ...]
    rows: int
    complete: bool
    label_candidates: tuple[LabelCandidate, ...]
    label: str | None
    judged_by: ColumnConfig | None
    ctr: float | None
    size_bytes: int
    notes: tuple[Note, ...] = ()
    first_rows: tuple[tuple[str | None, ...], ...] = ()

    @property
    def column(self) -> dict[str, ColumnInspection]:
        """Columns by name."""
        return {column.name: column for column in self.columns}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        lists = {
            "columns": [asdict(column) for column in self.columns],
            "label_candidates": [found.to_dict() for found in self.label_candidates],
            "notes": [note.to_dict() for note in self.notes],
        }
        judged_by = self.judged_by and self.judged_by.to_dict()
        return asdict(self) | {"source": self.source.to_dict(), "judged_by": judged_by} | lists

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        columns = tuple(ColumnInspection.from_dict(column) for column in values["columns"])
        candidates = tuple(LabelCandidate.from_dict(found) for found in values["label_candidates"])
        own: dict[str, Any] = {
            "source": SourceConfig.from_dict(values["source"]),
            "columns": columns,
            "notes": notes_from(values["notes"]),
        }
        own["first_rows"] = tuple(tuple(row) for row in values["first_rows"])
        own["judged_by"] = values["judged_by"] and ColumnConfig.from_dict(values["judged_by"])
        return cls(**values | own | {"label_candidates": candidates})


def inspect_table(
    source: SourceConfig, max_rows: int = 200_000, *, label: ColumnConfig | None = None, max_bytes: int | None = None
) -> TableInspection:
    """Inspect the first rows of a raw table; of several files the first, with which the beginnings of the others are compared.

    Args:
        max_rows: rows to read; fewer in a table of hundreds of columns.
        label: the label with its settings, which roles and notes follow; by default the likeliest column.
        max_bytes: refuse a larger file.

    Raises:
        DataError: the file cannot be read as a table, or has no such label.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
    >>> _ = path.write_text("click,site\\n" + "1,a\\n0,b\\n" * 50)
    >>> [(column.name, column.role) for column in inspect_table(SourceConfig(paths=(str(path),))).columns]
    [('click', 'label'), ('site', 'categorical')]
    """
    reader = open_table(source, max_bytes=max_bytes)
    frame, complete = _first_rows(reader, max_rows)
    layout = reader.layout
    candidates = find_label_candidates(frame, complete=complete, missing_words=source.missing_words)
    if label is None:
        name = certain_label(candidates, headerless=not layout.header and not source.column_names)
    else:
        name = _chosen(candidates, label, frame.columns)
    judged_by = _judging(candidates, name, label)
    clicks = None if judged_by is None else _clicks(frame, judged_by)
    found = _inspected(frame, layout, name, judged_by, clicks, source)
    words = dict.fromkeys((*source.missing_words, *(word for one in found for word in one.missing_words)))
    source = source.replace(missing_words=tuple(words))
    findings = agreed(found, source)
    columns = tuple(finding.column for finding in findings)
    columns = tuple(replace(column, shares=_shared_vocabulary(column, columns, frame)) for column in columns)
    return TableInspection(
        source=layout.source(source),
        columns=columns,
        rows=len(frame),
        complete=complete,
        label_candidates=candidates,
        label=name,
        judged_by=judged_by,
        ctr=_rate(candidates, judged_by, clicks) if name else None,
        size_bytes=reader.total_bytes,
        notes=(
            *_label_notes(candidates, name, label),
            *reader.notes(),
            *(note for one in findings for note in one.notes),
            *time_split_notes(columns),
        ),
        first_rows=tuple(frame.head(FIRST_ROWS).select(pl.all().str.slice(0, CELL_LENGTH)).rows()),
    )


def _first_rows(reader: Table, max_rows: int) -> tuple[pl.DataFrame, bool]:
    """The first rows as texts, and whether they are all."""
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
        raise DataError(f"{reader.name} has no rows; give a file with data")
    return pl.concat(blocks), complete


def _chosen(candidates: tuple[LabelCandidate, ...], label: ColumnConfig, names: list[str]) -> str | None:
    """The name of a given label; None where it is open what in it counts as a click."""
    for name in (label.name, label.label_total):
        if name is not None and name not in names:
            raise DataError(f"the table has no column {name!r}; its columns are {', '.join(names)}")
    found = next((found for found in candidates if found.column == label.name), None)
    settings = label_settings(label)
    return label.name if (settings if found is None else found.plain or found.settled_by(settings)) else None


def _judging(
    candidates: tuple[LabelCandidate, ...], name: str | None, given: ColumnConfig | None
) -> ColumnConfig | None:  # fmt: skip
    """The label with the reading by which columns are judged: the given one, or the likeliest reading of the likeliest column."""
    if given is not None and given.name == name:
        return ColumnConfig(name=name, role="label", **label_settings(given))
    likeliest = _likeliest(candidates, name if given is None else given.name)
    return ColumnConfig(name=likeliest.column, role="label", **likeliest.readings[0].settings) if likeliest else None


def _rate(
    candidates: tuple[LabelCandidate, ...], label: ColumnConfig | None, clicks: NDArray[np.float64] | None
) -> float | None:  # fmt: skip
    """The share of clicks in the inspected rows; of shares and impressions as the label's candidate counts them."""
    if label is None or clicks is None:
        return None
    readings = [reading for found in candidates if found.column == label.name for reading in found.readings]
    for reading in readings:
        if label == ColumnConfig(name=label.name, role="label", **reading.settings) and reading.rows and not label.label_total:
            return reading.clicks / reading.rows
    labelled = clicks[~np.isnan(clicks)]
    return None if label.is_soft or not len(labelled) else float(labelled.mean())


def _label_notes(
    candidates: tuple[LabelCandidate, ...], label: str | None, given: ColumnConfig | None
) -> tuple[Note, ...]:  # fmt: skip
    """The question which column is the label, or that a column was chosen that is not named like one."""
    if label is None:
        asked = tuple(found for found in candidates if given is not None and found.column == given.name)
        return (Note("label", None, label_question(asked or candidates), "fault"),)
    if given is not None or next(found for found in candidates if found.column == label).named:
        return ()
    text = f"{label} was taken as the label, because it holds two usual values and no column is named like a label"
    return (Note("label", label, text, "warning", "choose another label if that is wrong"),)


def _inspected(
    frame: pl.DataFrame, layout: Layout, label: str | None, judged_by: ColumnConfig | None, clicks: NDArray[np.float64] | None,
    source: SourceConfig,
) -> list[Finding]:  # fmt: skip
    """Every column of the inspected rows, with its notes."""
    rules = CellRules(missing_words=source.missing_words)
    sample = None if clicks is None else label_sample(clicks)

    def inspected(name: str) -> Finding:
        if name in layout.ignored:
            return Finding(ColumnInspection(name, "ignore", layout.ignored[name], 0, 1.0, ()))
        if name == label and judged_by is not None:
            return _label(Cells.of(frame[name], rules), judged_by)
        known = None if judged_by is not None and name in (judged_by.name, judged_by.label_total) else sample
        if name in layout.list_columns:
            return inspect_list(frame[name], Notation(), known)
        return inspect_column(Cells.of(frame[name], rules), known)

    return [inspected(name) for name in frame.columns]


def _likeliest(candidates: tuple[LabelCandidate, ...], label: str | None) -> LabelCandidate | None:
    """The label, or the candidate that is likelier than every other by its name; None if there is none."""
    if label is None and len(candidates) > 1 and candidates[0].likeliness == candidates[1].likeliness:
        return None
    return next((found for found in candidates if label in (None, found.column)), None)


def _label(cells: Cells, label: ColumnConfig) -> Finding:
    held = f"holds {' and '.join(sorted(cells.facts['examples'][:2]))}" if cells.facts["distinct"] == 2 else ""
    return Finding(ColumnInspection(**cells.facts, role="label", reason=reading_text(label) or held or "chosen as the label"))


def _clicks(frame: pl.DataFrame, label: ColumnConfig) -> NDArray[np.float64]:
    """1 for a click, 0 for none, NaN without a label, float64 (n,). Shares of clicks above their mean are read as clicks."""
    cells = frame[label.name]
    empty = is_missing(cells) & ~cells.is_in(list(label.positive))
    if label.is_soft:
        shares = read_numbers(cells)[0]
        if label.label_total is not None:
            shown = read_numbers(frame[label.label_total])[0]
            shares = np.divide(shares, shown, out=np.full(len(shares), np.nan), where=shown > 0)
        known = shares[~np.isnan(shares)]
        clicks = np.where(np.isnan(shares), np.nan, shares > (known.mean() if len(known) else 0.0))
    else:
        texts = cells.unique().drop_nulls().to_list()
        values = dict(zip(texts, _values(texts, label), strict=True))
        read = cells.replace_strict(values, default=None, return_dtype=pl.Float64)
        clicks = read.fill_null(float("nan")).to_numpy()
    return np.where(empty.to_numpy(), 0.0 if label.empty_label == "negative" else np.nan, clicks)


def _values(texts: list[str], label: ColumnConfig) -> list[float]:
    """1.0 or 0.0 of each distinct text."""
    if label.positive:
        return [float(is_positive(text, label.positive)) for text in texts]
    if label.threshold is not None:
        return [float(number >= label.threshold) for number in read_numbers(pl.Series(texts, dtype=pl.String))[0]]
    return [float(label_value(text) == 1.0) for text in texts]


def _shared_vocabulary(column: ColumnInspection, others: tuple[ColumnInspection, ...], frame: pl.DataFrame) -> str | None:
    """The categorical column with the same values as a list's elements, for example the item column of a behaviour list."""
    if column.role != "list":
        return None
    elements = elements_of(frame[column.name], Notation(column.separator, column.list_format))
    categorical = [other.name for other in others if other.role == "categorical"]
    overlaps = {name: overlap(elements, canonical(frame[name].unique())) for name in categorical}
    best = max(overlaps, key=lambda name: overlaps[name], default=None)
    return best if best is not None and overlaps[best] >= _SAME_VALUES else None
