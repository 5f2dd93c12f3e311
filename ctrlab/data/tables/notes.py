"""Notes on a table or a dataset: findings that page, command line and Python show in the same words."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Severity = Literal["info", "warning", "fault"]


@dataclass(frozen=True)
class Note:
    """A finding about a table, one of its columns, or the dataset made from it.

    kind: a stable name of the kind of finding, for example "leak". column: the column it is about; None for the whole table.
    text: one sentence with the numbers. severity: info, warning (the result may mislead) or fault (rows or cells are lost).
    remedy: what to do about it, with the name of the setting; "" if there is nothing to do.

    >>> note = Note("leak", "paid", "paid alone gives an AUC of 0.99", "warning", "ignore the column paid")
    >>> note == Note.from_dict(note.to_dict())
    True
    >>> print(note.line)
    warning: paid alone gives an AUC of 0.99; ignore the column paid
    """

    kind: str
    column: str | None
    text: str
    severity: Severity = "info"
    remedy: str = ""

    @property
    def line(self) -> str:
        """Severity, text and remedy as one line."""
        return f"{self.severity}: {self.text}" + (f"; {self.remedy}" if self.remedy else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**values)


def notes_from(values: Iterable[dict[str, Any]]) -> tuple[Note, ...]:
    """The notes of a JSON list."""
    return tuple(Note.from_dict(value) for value in values)
