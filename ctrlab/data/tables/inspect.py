"""Inspects a raw table: infers the role of each column and which one is the label."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.configs import SourceConfig
from ctrlab.data.tables.agreement import agreed
from ctrlab.data.tables.cells import CellRules, canonical
from ctrlab.data.tables.columns import Cells, ColumnInspection
from ctrlab.data.tables.evidence import label_sample
from ctrlab.data.tables.inspect_lists import elements_of, overlap
from ctrlab.data.tables.label_candidates import LabelCandidate, LabelReading, certain_label, find_label_candidates, label_question
from ctrlab.data.tables.labels import is_empty, is_positive, label_value
from ctrlab.data.tables.layout import Layout
from ctrlab.data.tables.list_cells import Notation
from ctrlab.data.tables.notes import Note, notes_from
from ctrlab.data.tables.numbers import read_numbers
from ctrlab.data.tables.reader import open_table
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
    label: the candidate that is the label beyond doubt; None where a person must choose.
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
        return asdict(self) | {"source": self.source.to_dict()} | lists

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        columns = tuple(ColumnInspection.from_dict(column) for column in values["columns"])
        candidates = tuple(LabelCandidate.from_dict(found) for found in values["label_candidates"])
        own = {"source": SourceConfig.from_dict(values["source"]), "columns": columns, "notes": notes_from(values["notes"])}
        own["first_rows"] = tuple(tuple(row) for row in values["first_rows"])
        return cls(**values | own | {"label_candidates": candidates})


def inspect_table(source: SourceConfig, max_rows: int = 200_000, *, max_bytes: int | None = None) -> TableInspection:
    """Inspect the first rows of a raw table; of several files the first, with which the beginnings of the others are compared.

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
        raise DataError(f"{reader.name} has no rows; give a file with data")
    frame = pl.concat(blocks)
    layout = reader.layout
    candidates = find_label_candidates(frame, complete=complete, missing_words=source.missing_words)
    label = certain_label(candidates, headerless=not layout.header and not source.column_names)
    findings = agreed(_inspected(frame, layout, candidates, label, source), source)
    columns = tuple(finding.column for finding in findings)
    columns = tuple(replace(column, shares=_shared_vocabulary(column, columns, frame)) for column in columns)
    known = layout.source(source)
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
        notes=(
            *_label_notes(candidates, label),
            *reader.notes(),
            *(note for one in findings for note in one.notes),
            *time_split_notes(columns),
        ),
        first_rows=tuple(frame.head(FIRST_ROWS).select(pl.all().str.slice(0, CELL_LENGTH)).rows()),
    )


def _label_notes(candidates: tuple[LabelCandidate, ...], label: str | None) -> tuple[Note, ...]:
    """The question which column is the label, or that a column was chosen that is not named like one."""
    if label is None:
        return (Note("label", None, label_question(candidates), "fault"),)
    chosen = next(found for found in candidates if found.column == label)
    if chosen.named:
        return ()
    text = f"{label} was taken as the label, because it holds two usual values and no column is named like a label"
    return (Note("label", label, text, "warning", "choose another label if that is wrong"),)


def _inspected(
    frame: pl.DataFrame, layout: Layout, candidates: tuple[LabelCandidate, ...], label: str | None, source: SourceConfig
) -> list[Finding]:
    """Every column of the inspected rows, with its notes."""
    rules = CellRules(missing_words=source.missing_words)
    likeliest = _likeliest(candidates, label)
    sample = label_sample(_clicks(frame[likeliest.column], likeliest.readings[0])) if likeliest else None

    def inspected(name: str) -> Finding:
        if name in layout.ignored:
            return Finding(ColumnInspection(name, "ignore", layout.ignored[name], 0, 1.0, ()))
        if name == label:
            return _label(Cells.of(frame[name], rules))
        known = None if likeliest and name == likeliest.column else sample
        if name in layout.list_columns:
            return inspect_list(frame[name], Notation(), known)
        return inspect_column(Cells.of(frame[name], rules), known)

    return [inspected(name) for name in frame.columns]


def _likeliest(candidates: tuple[LabelCandidate, ...], label: str | None) -> LabelCandidate | None:
    """The label, or the candidate that is likelier than every other by its name; None if there is none."""
    if label is None and len(candidates) > 1 and candidates[0].likeliness == candidates[1].likeliness:
        return None
    return next((found for found in candidates if label in (None, found.column)), None)


def _label(cells: Cells) -> Finding:
    reason = f"holds two values, {' and '.join(sorted(cells.facts['examples']))}"
    return Finding(ColumnInspection(**cells.facts, role="label", reason=reason))


def _clicks(labels: pl.Series, reading: LabelReading) -> NDArray[np.float64]:
    """1 for a click, 0 for none, NaN without a label, float64 (n,). Shares of clicks are read as clicks from one half on."""
    texts = [text for text in labels.unique() if not is_empty(text)]
    if reading.positive:
        values = [float(is_positive(text, reading.positive)) for text in texts]
    elif reading.threshold is not None or reading.soft:
        least = 0.5 if reading.threshold is None else reading.threshold
        values = (read_numbers(pl.Series(texts, dtype=pl.String))[0] >= least).astype(np.float64).tolist()
    else:
        values = [float(label_value(text) == 1.0) for text in texts]
    clicks = labels.replace_strict(dict(zip(texts, values, strict=True)), default=None, return_dtype=pl.Float64)
    return clicks.fill_null(float("nan")).to_numpy()


def _shared_vocabulary(column: ColumnInspection, others: tuple[ColumnInspection, ...], frame: pl.DataFrame) -> str | None:
    """The categorical column with the same values as a list's elements, for example the item column of a behaviour list."""
    if column.role != "list":
        return None
    elements = elements_of(frame[column.name], Notation(column.separator, column.list_format))
    categorical = [other.name for other in others if other.role == "categorical"]
    overlaps = {name: overlap(elements, canonical(frame[name].unique())) for name in categorical}
    best = max(overlaps, key=lambda name: overlaps[name], default=None)
    return best if best is not None and overlaps[best] >= _SAME_VALUES else None
