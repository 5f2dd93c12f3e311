"""Journal of an encoding: how far it has come, written to disk so that an interrupted run can be resumed."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ctrlab.data.configs import SPLIT_NAMES


def _zero_per_split() -> list[Any]:
    return [0] * len(SPLIT_NAMES)


@dataclass
class EncodingJournal:
    """Progress of an encoding.

    task: identifies what is encoded (config, raw files with size and time); a journal of another task is discarded.
    file, position: where the first pass continues, see `parsing.Round`. round: number of rounds that were parsed.
    rows, clicks, weights: of each split so far: rows that are kept, and the sums of weight x label and of weights (the numbers of
    clicks and rows, where rows have no weights and labels are not soft). dropped: rows left out for want of a label or weight.
    unreadable: cells of each field that could not be read.
    lines: `LineCounts` of each file so far.
    labels: label texts seen so far. class_rows: non-clicks and clicks so far, for a stratified split.
    timestamp_formats: found format of each timestamp field.
    time_format, time_borders: format and split borders (microseconds) of a split by time; None until they are found.
    parsed: whether the column cache holds every row. blocks_written: blocks of rows in the arrays of the splits.
    complete: whether the dataset is whole and only the cache has to be removed.
    """

    task: list[Any]
    file: int = 0
    position: int = 0
    round: int = 0
    rows: list[int] = field(default_factory=_zero_per_split)
    clicks: list[float] = field(default_factory=_zero_per_split)
    weights: list[float] = field(default_factory=_zero_per_split)
    dropped: int = 0
    unreadable: dict[str, int] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    class_rows: list[int] = field(default_factory=lambda: [0, 0])
    timestamp_formats: dict[str, str | None] = field(default_factory=dict)
    time_format: str | None = None
    time_borders: list[int] | None = None
    parsed: bool = False
    blocks_written: int = 0
    complete: bool = False

    @property
    def num_rows(self) -> int:
        """Rows of all splits so far."""
        return sum(self.rows)

    @property
    def rows_read(self) -> int:
        """Rows that were read so far, kept or dropped."""
        return self.num_rows + self.dropped

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; TypeError for a document of another shape."""
        return cls(**values)
