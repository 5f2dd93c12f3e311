"""Whether the files of one dataset agree: a column of numbers or times in the first file holds them in every other one too."""

from dataclasses import replace

import numpy as np
import polars as pl

from ctrlab.data.configs import SourceConfig
from ctrlab.data.tables.cells import CellRules, canonical
from ctrlab.data.tables.columns import NEARLY_ALL, ColumnInspection
from ctrlab.data.tables.notes import Note
from ctrlab.data.tables.numbers import read_numbers
from ctrlab.data.tables.reader import open_table
from ctrlab.data.tables.roles import Finding
from ctrlab.data.tables.timestamps import parse_timestamps

#: Rows of each further file that are compared with the first one.
HEAD_ROWS = 20_000
_MAX_FILES = 20


def agreed(findings: list[Finding], source: SourceConfig) -> list[Finding]:
    """The findings of the first file after a look at the beginnings of the others.

    A column whose cells another file cannot read in its role becomes categorical, with a note that names the file and the share.
    """
    for part in range(1, min(len(source.paths), _MAX_FILES)):
        reader = open_table(source, part=part)
        wanted = [finding.column.name for finding in findings if finding.column.role in ("numeric", "timestamp")]
        present = [name for name in wanted if name in reader.column_names]
        if not present:
            continue
        head = next(iter(reader.blocks(present)), None)
        if head is not None:
            head = head.head(HEAD_ROWS)
            findings = [
                _compared(finding, head, reader.name, source) if finding.column.name in present else finding
                for finding in findings
            ]
    return findings


def _compared(finding: Finding, head: pl.DataFrame, file: str, source: SourceConfig) -> Finding:
    column = finding.column
    if column.role not in ("numeric", "timestamp"):
        return finding
    texts = canonical(head[column.name], CellRules(missing_words=source.missing_words)).drop_nulls()
    share = _readable(texts, column)
    if share >= NEARLY_ALL:
        return finding
    what = "numbers" if column.role == "numeric" else f"times ({column.timestamp_format})"
    text = (
        f"{column.name} holds {what} in the first file, and {1 - share:.0%} of its cells in {file} are none; taken as categorical"
    )
    note = Note("files_differ", column.name, text, "warning", f"write {column.name} in the same way in every file, or ignore it")
    reason = f"holds {what} in the first file and other texts in {file}"
    return Finding(replace(column, role="categorical", reason=reason, minimum=None, maximum=None), (*finding.notes, note))


def _readable(texts: pl.Series, column: ColumnInspection) -> float:
    if not len(texts):
        return 1.0
    if column.role == "timestamp":
        times = parse_timestamps(texts, column.timestamp_format or "iso")
        return 1 - times.null_count() / len(texts)
    numbers, _ = read_numbers(texts, CellRules(number_format=column.number_format))
    return float((~np.isnan(numbers)).mean())
