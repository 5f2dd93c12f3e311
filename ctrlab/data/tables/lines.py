"""Counts of a file's lines: those in rows, those that are no rows, those that were left out or repaired."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ctrlab.data.tables.faults import plural
from ctrlab.data.tables.notes import Note
from ctrlab.errors import DataError

#: Largest share of a file's lines that may be left out, because they have too few or too many cells or cannot be read.
MAX_LEFT_OUT = 0.01
#: Kinds of lines that hold no row.
NO_ROWS = ("above", "blank", "comment", "header again")
#: Kinds of lines that are rows and were left out.
LEFT_OUT = ("few", "many", "unreadable")
#: Kinds of rows that were read and repaired.
REPAIRED = ("stray quote", "encoding", "new column", "value left out")
#: What each kind of note says of a number of lines, whether rows are lost, and what to do.
_WORDS = {
    "few": ("{lines} left out, because of too few cells", "fault", "mend them, or set the delimiter or the quotes"),
    "many": ("{lines} left out, because of too many cells", "fault", "mend them, or set the delimiter or the quotes"),
    "unreadable": ("{lines} left out, because they hold no record that can be read", "fault", "mend or remove them"),
    "stray quote": ("{lines} read with a quote that does not close as text", "warning", "set quote to none if quotes are text"),
    "encoding": ("{lines} read in another encoding than the rest", "warning", "set the encoding, or save the file as UTF-8"),
    "new column": (
        "{lines} read without a value whose name the first records lack",
        "warning",
        "put such names into the first record",
    ),
    "value left out": (
        "{lines} read without a value that does not fit its column",
        "warning",
        "give the columns as CSV or Parquet",
    ),
    "header again": ("{lines} skipped as the header again, as in files that were joined", "info", ""),
    "comment": ("{lines} skipped as comments", "info", "set comment if they are rows"),
    "blank": ("{lines} skipped as blank", "info", ""),
    "above": ("{lines} skipped above the table, its header included", "info", "set skip_lines or header if that is wrong"),
}
_ROOM = {"few": "too few cells", "many": "too many cells", "unreadable": "no record that can be read"}


@dataclass(frozen=True)
class LineCounts:
    """How the lines of a file, or of a part of it, were read.

    lines: all of them. rows: rows that were read. row_lines: their lines (a quoted cell may hold line feeds).
    counts: lines of each other kind (`NO_ROWS`, `LEFT_OUT`, `REPAIRED`); repaired ones are among the rows.
    first: number of the first line of a kind, from 1. cells: number of its cells.

    >>> (LineCounts(lines=3, rows=2, row_lines=2, counts={"few": 1}) + LineCounts(lines=1, rows=1, row_lines=1)).reconciled
    True
    """

    lines: int = 0
    rows: int = 0
    row_lines: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    cells: dict[str, int] = field(default_factory=dict)

    def __add__(self, later: "LineCounts") -> "LineCounts":
        """The counts of two consecutive parts of a file."""
        kinds = self.counts.keys() | later.counts.keys()
        return LineCounts(
            self.lines + later.lines,
            self.rows + later.rows,
            self.row_lines + later.row_lines,
            {kind: self.counts.get(kind, 0) + later.counts.get(kind, 0) for kind in sorted(kinds)},
            {kind: line + self.lines for kind, line in later.first.items()} | self.first,
            later.cells | self.cells,
        )

    @property
    def left_out(self) -> int:
        """Number of rows that were left out."""
        return sum(self.counts.get(kind, 0) for kind in LEFT_OUT)

    @property
    def reconciled(self) -> bool:
        """Whether every line is accounted for."""
        return self.lines == self.row_lines + sum(self.counts.get(kind, 0) for kind in (*NO_ROWS, *LEFT_OUT))

    def check(self, name: str, columns: int) -> None:
        """Raise DataError if more than `MAX_LEFT_OUT` of the lines would be left out."""
        if self.left_out <= MAX_LEFT_OUT * self.lines:
            return
        kind = min((kind for kind in LEFT_OUT if self.counts.get(kind)), key=lambda kind: self.first[kind])
        what = (
            f"has {plural(self.cells[kind], 'cell')} where {columns} are expected"
            if kind in self.cells
            else f"holds {_ROOM[kind]}"
        )
        raise DataError(
            f"{name}: line {self.first[kind]} {what}, and {self.left_out:,} of {self.lines:,} lines cannot be read; every row "
            "needs one cell a column, so mend or remove those rows, or set the delimiter, the quotes or the lines to skip"
        )

    def notes(self, name: str, header: bool) -> list[Note]:
        """What was left out, repaired or skipped, with the first line as an example.

        Args:
            name: of the file. header: whether one of the lines above the table is its header, which is not worth a note.
        """
        found = []
        for kind, (text, severity, remedy) in _WORDS.items():
            number = self.counts.get(kind, 0)
            if number - (kind == "above" and header) <= 0:
                continue
            lines = plural(number, "line") + (" was" if number == 1 else " were")
            where = f" (the first is line {self.first[kind]:,})" if kind in self.first else ""
            sentence = f"{name}: {text.format(lines=lines)}{where}, of {self.lines:,}"
            found.append(Note(f"lines: {kind}", None, sentence, severity, remedy))  # type: ignore[arg-type]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**values)
