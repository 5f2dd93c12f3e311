"""Per-field statistics for the dataset summary, collected while the cells are encoded."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.configs import SPLIT_NAMES
from ctrlab.data.dataset import FieldSummary
from ctrlab.data.encoding.fields import NUM_RESERVED_IDS, Field, ListField, TextField
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID, PADDING_ID

#: The most frequent ids whose share of the traffic is reported.
HEAD_SHARE = 0.01


@dataclass
class _Rows:
    """train, missing: training rows, and those without a value. cells, unknown: cells of each split, and those with id 0."""

    train: int = 0
    missing: int = 0
    cells: list[int] = field(default_factory=lambda: [0] * len(SPLIT_NAMES))
    unknown: list[int] = field(default_factory=lambda: [0] * len(SPLIT_NAMES))

    @property
    def unseen_shares(self) -> dict[str, float]:
        """The share of cells with id 0 in each split but train."""
        counts = zip(SPLIT_NAMES[1:], self.unknown[1:], self.cells[1:], strict=True)
        return {name: unknown / cells for name, unknown, cells in counts if cells}


class FieldStats:
    """Counts of one field.

    counts: occurrences of each id in the training rows, int64 (field_dim,), without the padding of lists.
    """

    def __init__(self, field: Field, counts: NDArray[np.int64] | None = None, rows: _Rows | None = None) -> None:
        self.field = field
        self.counts = np.zeros(field.field_dim, np.int64) if counts is None else counts
        self._rows = rows or _Rows()

    def add(self, encoded: NDArray[Any], cells: NDArray[Any], splits: NDArray[np.uint8]) -> None:
        """Count a block of rows by its encoded and parsed cells and the split of each row, uint8 (n,)."""
        train = splits == 0
        num_train = int(np.count_nonzero(train))
        self._rows.train += num_train
        if self.field.output == "values":
            self._rows.missing += int(np.count_nonzero(np.isnan(cells[train])))
            return
        if self.field.output == "lists":
            self._rows.missing += int(np.count_nonzero(encoded[train, 0] == PADDING_ID))
            splits = np.repeat(splits, encoded.shape[1])
            encoded = encoded.reshape(-1)
            present = encoded != PADDING_ID
            encoded, splits = encoded[present], splits[present]
        self._count(encoded, splits)

    def _count(self, ids: NDArray[np.int32], splits: NDArray[np.uint8]) -> None:
        from ctrlab.data.encoding.compiled.rows import count_ids

        unknown = np.array(self._rows.unknown, np.int64)
        count_ids(ids, splits, self.counts, unknown)
        self._rows.unknown = unknown.tolist()
        self._rows.cells = (np.bincount(splits, minlength=len(SPLIT_NAMES)) + self._rows.cells).tolist()

    def state(self) -> dict[str, Any]:
        """Everything but `counts`, as JSON."""
        return asdict(self._rows)

    @classmethod
    def restore(cls, field: Field, counts: NDArray[np.int64], state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        return cls(field, counts, _Rows(**state))

    def summary(self) -> FieldSummary:
        """The field's entry in the summary."""
        field, rows = self.field, self._rows
        if field.output == "values":
            return FieldSummary(
                field.name, field.column, "numeric", 0, rows.missing / max(1, rows.train), 0.0, 0.0, field.unreadable
            )
        cells = max(1, int(self.counts.sum()))
        # Buckets without a training row do not count.
        used = np.sort(self.counts[NUM_RESERVED_IDS:])[::-1]
        used = used[used > 0]
        return FieldSummary(
            field.name, field.column,
            kind="list" if field.output == "lists" else "categorical",
            cardinality=len(used),
            missing_share=rows.missing / max(1, rows.train) if field.output == "lists" else int(self.counts[MISSING_ID]) / cells,
            oov_share=sum(rows.unknown[1:]) / max(1, sum(rows.cells[1:])),
            head_share=int(used[: max(1, round(HEAD_SHARE * len(used)))].sum()) / cells,
            unreadable=field.unreadable,
            oov_by_split=rows.unseen_shares,
            oov_expected=self._expected(cells),
        )  # fmt: skip

    def _expected(self, cells: int) -> float:
        """The share out of vocabulary among further rows like the training rows, by Good and Turing's estimate.

        Values that occurred r times have the probability (r + 1) n(r + 1) / N, where n(r) values occurred r times in N cells.
        """
        if not isinstance(self.field, TextField | ListField):
            return 0.0
        least = self.field.min_count
        rarest = int(np.count_nonzero(self.counts[NUM_RESERVED_IDS:] == least))
        return min(1.0, (int(self.counts[OUT_OF_VOCABULARY_ID]) + least * rarest) / cells)
