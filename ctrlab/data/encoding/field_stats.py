"""Per-field statistics for the dataset summary, collected while the cells are encoded."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.dataset import FieldSummary
from ctrlab.data.encoding.fields import NUM_RESERVED_IDS, Field, Mask
from ctrlab.data.schema import MISSING_ID, PADDING_ID

#: The most frequent ids whose share of the traffic is reported.
HEAD_SHARE = 0.01


@dataclass
class _Rows:
    """train, missing: training rows, and those without a value. others, unknown: cells of other rows, and those with id 0."""

    train: int = 0
    missing: int = 0
    others: int = 0
    unknown: int = 0


class FieldStats:
    """Counts of one field.

    counts: occurrences of each id in the training rows, int64 (field_dim,), without the padding of lists.
    """

    def __init__(self, field: Field, counts: NDArray[np.int64] | None = None, rows: _Rows | None = None) -> None:
        self.field = field
        self.counts = np.zeros(field.field_dim, np.int64) if counts is None else counts
        self._rows = rows or _Rows()

    def add(self, encoded: NDArray[Any], cells: NDArray[Any], train: Mask) -> None:
        """Count a block of rows by its encoded and parsed cells."""
        num_train = int(np.count_nonzero(train))
        self._rows.train += num_train
        if self.field.output == "values":
            self._rows.missing += int(np.count_nonzero(np.isnan(cells[train])))
            return
        if self.field.output == "lists":
            self._rows.missing += int(np.count_nonzero(encoded[train, 0] == PADDING_ID))
            train = np.repeat(train, encoded.shape[1])
            encoded = encoded.reshape(-1)
            present = encoded != PADDING_ID
            encoded, train = encoded[present], train[present]
        self._count(encoded, train)

    def _count(self, ids: NDArray[np.int32], train: Mask) -> None:
        from ctrlab.data.encoding.compiled.rows import count_ids

        self._rows.others += len(ids) - int(np.count_nonzero(train))
        self._rows.unknown += int(count_ids(ids, train, self.counts))

    def state(self) -> dict[str, int]:
        """Everything but `counts`, as JSON."""
        return asdict(self._rows)

    @classmethod
    def restore(cls, field: Field, counts: NDArray[np.int64], state: dict[str, int]) -> Self:
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
            oov_share=rows.unknown / max(1, rows.others),
            head_share=int(used[: max(1, round(HEAD_SHARE * len(used)))].sum()) / cells,
            unreadable=field.unreadable,
        )  # fmt: skip
