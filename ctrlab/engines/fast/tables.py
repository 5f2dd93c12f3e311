"""The twins of embeddings and tables, and the look-up that an embedding hands to the layers that read it."""

from typing import Any

import torch
from torch import Tensor

from ctrlab.data.schema import Fields
from ctrlab.engines.fast.batch_vectors import BatchVectors, row_gradient
from ctrlab.engines.fast.context import FastContext
from ctrlab.engines.fast.dedup_linear import linear_of_look_up
from ctrlab.engines.fast.grouping import whole_numbers
from ctrlab.engines.fast.linear import FastLinear, Operand
from ctrlab.kernels import rows
from ctrlab.models.layers import FieldEmbedding, FusedTable, LookupTable


class LookedUp(Operand):
    """The vectors of a batch as a twin's embedding returns them, (B, M, d), or side by side where `flat`, (B, M d)."""

    def __init__(self, batch: BatchVectors, *, flat: bool = False) -> None:
        self.batch, self.flat = batch, flat

    def plain(self) -> Tensor:
        """As a tensor."""
        return self.batch.vectors.flatten(1) if self.flat else self.batch.vectors

    def through(self, layer: FastLinear) -> Tensor:
        """Each distinct vector is multiplied once where that takes less time."""
        found = linear_of_look_up(self.batch, layer) if self.flat else None
        return layer.multiply(self.plain()) if found is None else found


class FastLookupTable(LookupTable):
    """The twin of `LookupTable`."""

    context: FastContext

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...,) integer -> rows (..., width)."""
        batch = BatchVectors(self.context, ids.reshape(-1, 1), ids.new_zeros(1, dtype=torch.int64), self.weight)
        return batch.vectors.view(*ids.shape, self.width)


class FastFusedTable(FusedTable):
    """The twin of `FusedTable`."""

    context: FastContext

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) integer -> rows (B, F, width)."""
        return BatchVectors(self.context, ids, self.offsets[: ids.shape[1]], self.table.weight).vectors

    def sum(self, ids: Tensor) -> Tensor:
        """ids (B, F), of a table of width 1 -> (B,): the sum of each row's numbers."""
        summed: Tensor = _FieldSums.apply(self.table.weight, ids, self.offsets[: ids.shape[1]], self.context)
        return summed


class FastFieldEmbedding(FieldEmbedding):
    """The twin of `FieldEmbedding`.

    joins: whether all that read its output take a `LookedUp`. with_pairs: whether one of them reads the sum over its pairs.
    """

    context: FastContext
    joins: bool = False
    with_pairs: bool = False

    def forward(self, fields: Fields) -> Tensor | LookedUp:  # type: ignore[override]
        """-> (B, M, d)."""
        ids, table = fields.ids, self.categorical.table
        values, numeric = (fields.values, self.numeric) if len(self.numeric) else (None, None)
        batch = BatchVectors(
            self.context, ids, self.categorical.offsets[: ids.shape[1]], table.weight, values, numeric,
            with_pairs=self.with_pairs,
        )  # fmt: skip
        return LookedUp(batch) if self.joins else batch.vectors

    def dense_input(self, embeddings: Tensor | LookedUp, fields: Fields) -> Tensor | LookedUp:  # type: ignore[override]
        """(B, M, d) -> (B, M d), or (B, M d + V)."""
        if not isinstance(embeddings, LookedUp):
            return super().dense_input(embeddings, fields)
        if self.raw_values and fields.values.shape[1]:
            return super().dense_input(embeddings.plain(), fields)
        return LookedUp(embeddings.batch, flat=True)


class _FieldSums(torch.autograd.Function):
    """The sum over the fields of a table of width 1."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, offsets: Tensor, context: FastContext) -> Tensor:
        ctx.table_shape, ctx.num_fields, ctx.context = weight.shape, ids.shape[1], context
        if ctx.needs_input_grad[0]:
            ctx.groups = context.grouping.of(ids, offsets, len(weight))
            before = context.before_reading.get(id(weight))
            if before is not None:
                before(ctx.groups.rows)
        numbers = weight.detach().numpy()
        return torch.from_numpy(rows.sum_of_rows(whole_numbers(ids), offsets.numpy(), numbers, context.parts))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        numbers = grad.contiguous().numpy()
        of_rows = rows.sum_of_scalars_by_row(numbers, ctx.groups, ctx.num_fields, ctx.context.parts)
        return row_gradient(ctx.groups.rows, torch.from_numpy(of_rows), ctx.table_shape, ctx.context.sparse), None, None, None
