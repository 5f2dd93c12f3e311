"""The squares of a folded FM as part of the first-order term: both are one number an id."""

import copy
from typing import Any, cast

import torch
from torch import Tensor

from ctrlab.compression.embedding import FoldedEmbedding
from ctrlab.compression.quantized import is_quantized
from ctrlab.compression.readers.fm import FoldedFM
from ctrlab.models.base import CTRModel
from ctrlab.models.layers import LinearTerm


@torch.no_grad()
def with_squares_in_first_order(model: CTRModel) -> CTRModel:
    """A copy whose first-order weights hold -1/2 z (q z + l) of each id's latents z, equal in outputs to rounding.

    The model itself where it has no folded FM beside a first-order term, or where its tables hold codes, which stay as they are.
    Squares of numeric fields stay in the FM.
    """
    if is_quantized(model):
        return model
    parts = (getattr(model, name, None) for name in ("embedding", "fm", "linear"))
    if not all(isinstance(part, kind) for part, kind in zip(parts, (FoldedEmbedding, FoldedFM, LinearTerm), strict=True)):
        return model
    new: Any = copy.deepcopy(model)
    place, first_order = 0, new.linear.categorical
    for group in new.embedding.groups:
        for position, field in enumerate(group.fields):
            latents = group.weight[group.tables.rows_of(position)]
            columns = slice(place, place + group.width)
            first_order.table.weight[first_order.rows_of(field)] -= 0.5 * _squares(latents, new.fm, columns)
            place += group.width
    new.fm = _NumericSquares(new.fm, place)
    return cast(CTRModel, new)


def _squares(latents: Tensor, fm: FoldedFM, columns: slice) -> Tensor:
    """(ids, k) -> (ids, 1)."""
    return (latents * (latents * fm.square[columns] + fm.linear[columns])).sum(dim=1, keepdim=True)


class _NumericSquares(torch.nn.Module):
    """1/2 (|S z + m|^2 - sum over numeric fields of (q z + l) z - c)."""

    def __init__(self, fm: FoldedFM, tables_width: int) -> None:
        super().__init__()
        self.fm, self.tables_width = fm, tables_width

    def forward(self, z: Tensor) -> Tensor:
        """(B, S) -> (B,)."""
        total = torch.nn.functional.linear(z, self.fm.total_weight, self.fm.total_bias).square().sum(dim=1)
        if z.shape[1] > self.tables_width:
            own = z[:, self.tables_width :]
            square, linear = self.fm.square[self.tables_width :], self.fm.linear[self.tables_width :]
            total = total - (own * (own * square + linear)).sum(dim=1)
        return 0.5 * (total - self.fm.constant)
