"""What the summary of a dataset counts of a field while its cells pass by."""

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
    """train, missing: training rows, and those without a value. others, unknown: cells outside them, and those with id 0."""

    train: int = 0
    missing: int = 0
    others: int = 0
    unknown: int = 0


class FieldTally:
    """counts: training cells of each id, int64 (field_dim,); a list's padding is not counted."""

    def __init__(self, field: Field, counts: NDArray[np.int64] | None = None, rows: _Rows | None = None) -> None:
        self.field = field
        self.counts = np.zeros(field.field_dim, np.int64) if counts is None else counts
        self._rows = rows or _Rows()

    def add(self, result: NDArray[Any], kept: NDArray[Any], train: Mask) -> None:
        """Count rows by what became of their cells, and what was kept of those."""
        num_train = int(np.count_nonzero(train))
        self._rows.train += num_train
        if self.field.gives == "values":
            self._rows.missing += int(np.count_nonzero(np.isnan(kept[train])))
            return
        if self.field.gives == "lists":
            self._rows.missing += int(np.count_nonzero(result[train, 0] == PADDING_ID))
            train = np.repeat(train, result.shape[1])
            result = result.reshape(-1)
            present = result != PADDING_ID
            result, train = result[present], train[present]
        self._count(result, train)

    def _count(self, ids: NDArray[np.int32], train: Mask) -> None:
        from ctrlab.data.encoding.compiled.rows import tally

        self._rows.others += len(ids) - int(np.count_nonzero(train))
        self._rows.unknown += int(tally(ids, train, self.counts))

    def state(self) -> dict[str, int]:
        """All but the counts, as JSON."""
        return asdict(self._rows)

    @classmethod
    def restore(cls, field: Field, counts: NDArray[np.int64], state: dict[str, int]) -> Self:
        """The inverse of `state`."""
        return cls(field, counts, _Rows(**state))

    def summary(self) -> FieldSummary:
        """Its line of the summary."""
        own, rows = self.field, self._rows
        if own.gives == "values":
            return FieldSummary(own.name, own.column, "numeric", 0, rows.missing / max(1, rows.train), 0.0, 0.0, own.unreadable)
        cells = max(1, int(self.counts.sum()))
        # Buckets that no training row fell into are not in use.
        used = np.sort(self.counts[NUM_RESERVED_IDS:])[::-1]
        used = used[used > 0]
        return FieldSummary(
            own.name, own.column,
            kind="list" if own.gives == "lists" else "categorical",
            cardinality=len(used),
            missing_share=rows.missing / max(1, rows.train) if own.gives == "lists" else int(self.counts[MISSING_ID]) / cells,
            oov_share=rows.unknown / max(1, rows.others),
            head_share=int(used[: max(1, round(HEAD_SHARE * len(used)))].sum()) / cells,
            unreadable=own.unreadable,
        )  # fmt: skip
