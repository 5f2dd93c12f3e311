"""Dropping rare ids: the ids least frequent in training share one row; an index maps every id to its row."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ctrlab.compression.embedding import PartTable, ReducedGroup, TableSource
from ctrlab.data.schema import OUT_OF_VOCABULARY_ID, FeatureSchema
from ctrlab.errors import CompressionError
from ctrlab.plans.table_forms import kept_ids


class IdIndex(nn.Module):
    """The row of every id: int32 (num_ids of all fields, one behind the other)."""

    rows: Tensor
    starts: Tensor
    codes_are_table = True

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        ends = torch.tensor(dims, dtype=torch.int64).cumsum(0)
        self.register_buffer("rows", torch.zeros(sum(dims), dtype=torch.int32))
        self.register_buffer("starts", ends - torch.tensor(dims, dtype=torch.int64), persistent=False)

    def row_macs(self) -> int:
        """A look-up."""
        return 0

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> rows (B, F), each within its field's own table."""
        return self.rows[ids + self.starts[: ids.shape[1]]]


class KeptIdsGroup(ReducedGroup):
    """Row 0 of every table belongs to the out-of-vocabulary id and all dropped ones, the others to the ids seen most.

    Parameters: per field `kept_ids` rows of width d; and an int32 for every id.
    """

    def __init__(self, schema: FeatureSchema, fields: Sequence[int], rank: int, embed_dim: int) -> None:
        super().__init__(schema, fields, rank, embed_dim)
        self.index = IdIndex(self.dims)
        self.tables = PartTable([kept_ids(num_ids, embed_dim, rank) for num_ids in self.dims], embed_dim)

    def row_macs(self) -> int:
        """Look-ups only."""
        return 0

    def fill_(self, position: int, source: TableSource) -> None:
        """The shared row is the mean of those it stands for, weighted by their counts, or the out-of-vocabulary row as it was."""
        if source.counts is None:
            raise CompressionError(f"dropping rare ids of {source.name} needs the training counts of its ids; give counts")
        counts = torch.tensor(source.counts, dtype=torch.float64, device=source.weight.device)
        unknown = min(OUT_OF_VOCABULARY_ID, len(counts) - 1)
        own = self.tables.rows_of(position)
        by_count = torch.argsort(counts, descending=True, stable=True)
        kept = by_count[by_count != unknown][: own.stop - own.start - 1]
        rows = torch.zeros_like(counts, dtype=torch.int32)
        rows[kept] = torch.arange(1, len(kept) + 1, dtype=torch.int32, device=rows.device)
        start = int(self.index.starts[position])
        self.index.rows[start : start + len(rows)] = rows
        shared = torch.where(rows == 0, counts, 0.0)
        if shared.sum() == 0:
            shared[unknown] = 1.0
        target = self.tables.table.weight[own]
        target[0] = (shared @ source.weight.double() / shared.sum()).to(target.dtype)
        target[1 : len(kept) + 1] = source.weight[kept]

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> e (B, fields of this group, d)."""
        return self.tables(self.index(self.own_ids(ids)))  # type: ignore[no-any-return]

    def look_up(self, ids: Tensor, position: int) -> Tensor:
        """ids (...) of the table at `position` of this group -> e (..., d)."""
        return self.tables.look_up(self.index.rows[ids + self.index.starts[position]], position)
