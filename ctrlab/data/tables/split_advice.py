"""What a table suggests about its split."""

from collections.abc import Iterable
from typing import Protocol

from ctrlab.data.tables.notes import Note


class Column(Protocol):
    """A column's name and its inferred role; `ColumnInspection` is one."""

    @property
    def name(self) -> str: ...

    @property
    def role(self) -> str: ...


def time_split_notes(columns: Iterable[Column]) -> tuple[Note, ...]:
    """A note that offers a split by time where a column holds times; the first such column.

    A random split stays the default: a time column may be something else than the moment of the row, and a log of a few hours
    has nothing to gain.
    """
    column = next((column.name for column in columns if column.role == "timestamp"), None)
    if column is None:
        return ()
    return (
        Note(
            "time split",
            column,
            f"rows have times in {column}: a random split tests on the same hours that were trained on and flatters the model "
            "where it will predict later rows",
            "info",
            f"split by time (split method time, time_column {column}) if {column} is when a row was shown",
        ),
    )
