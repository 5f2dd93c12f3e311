"""The vectors of a batch, whose gradient holds each distinct row of the batch once: no cost grows with the table.

The autograd graph of a look-up has a node for the batch's distinct rows (U, d), from which all else is made: the vectors
(B, M, d), the sum over their pairs, and the linear layer that reads them (`dedup_linear.py`). So every gradient is complete.
torch's `embedding(sparse=True)` keeps a gradient row for every occurrence, and merging them took 5 times as long as a sort.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctrlab.engines.fast.context import FastContext
from ctrlab.engines.fast.grouping import whole_numbers
from ctrlab.engines.fast.pairs import sum_of_pairs, summed
from ctrlab.kernels import rows
from ctrlab.kernels.parts import Parts
from ctrlab.kernels.rows import ByField, PairGradient, RowGroups


class BatchVectors:
    """The vectors of a batch: `weight[ids + offsets]`, and after them `values` times `numeric`. M = F + V.

    ids: (B, F) integer. offsets: (F,) int64. weight: (num_rows, d). values: (B, V) and numeric: (V, d), or None.
    with_pairs: `pairs` will be read too, so that its gradient and that of `vectors` are summed by row in one pass.
    """

    def __init__(
        self, context: FastContext, ids: Tensor, offsets: Tensor, weight: Tensor, values: Tensor | None = None,
        numeric: Tensor | None = None, *, with_pairs: bool = False,
    ) -> None:  # fmt: skip
        self.with_pairs = with_pairs
        self.context, self.ids, self.offsets, self.weight = context, ids, offsets, weight
        self.values, self.numeric = values, numeric
        self.trains = torch.is_grad_enabled() and weight.requires_grad
        before = context.before_reading.get(id(weight))
        if self.trains and before is not None:
            before(self.groups.rows)

    @property
    def num_vectors(self) -> int:
        """M."""
        return self.ids.shape[1] + (0 if self.numeric is None else len(self.numeric))

    @cached_property
    def groups(self) -> RowGroups:
        """Where each distinct table row occurs."""
        return self.context.grouping.of(self.ids, self.offsets, len(self.weight))

    @cached_property
    def by_field(self) -> ByField | None:
        """The groups by field, None where a table row does not belong to one field alone."""
        return rows.by_field(self.groups, self.offsets.numpy(), self.context.parts)

    @cached_property
    def rows(self) -> Tensor:
        """(U, d): the distinct table rows, in the order of `groups.rows`; the gradient of the table comes through them."""
        found: Tensor = _DistinctRows.apply(self.weight, self.groups, self.context)
        return found

    @cached_property
    def numbers(self) -> Tensor:
        """(B, M, d), without gradients."""
        num_fields = self.ids.shape[1]
        out = self.weight.new_empty(len(self.ids), self.num_vectors, self.weight.shape[1])
        weight = self.weight.detach().numpy()
        rows.gather(whole_numbers(self.ids), self.offsets.numpy(), weight, out.numpy(), self.context.parts)
        if self.numeric is not None and self.values is not None:
            torch.mul(self.values.detach().unsqueeze(2), self.numeric.detach(), out=out[:, num_fields:])
        return out

    @property
    def vectors(self) -> Tensor:
        """(B, M, d)."""
        return self._vectors_and_pairs[0] if torch.is_grad_enabled() else self.numbers

    @cached_property
    def pairs(self) -> Tensor:
        """(B, d): sum_{i<j} e_i * e_j."""
        if not torch.is_grad_enabled():
            return summed(self.numbers, self.context.parts)[1]
        vectors, pairs = self._vectors_and_pairs
        return sum_of_pairs(vectors, self.context.parts) if pairs is None else pairs

    @cached_property
    def _vectors_and_pairs(self) -> tuple[Tensor, Tensor | None]:
        """Both with gradients; the second only `with_pairs`."""
        table_rows, groups = (self.rows, self.groups) if self.trains else (None, None)
        found: tuple[Tensor, Tensor | None] = _Vectors.apply(
            table_rows, self.numeric, self.values, self.numbers, groups, self.ids.shape[1], self.with_pairs, self.context.parts
        )
        return found


class _DistinctRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, groups: RowGroups, context: FastContext) -> Tensor:
        found = weight.new_empty(len(groups.rows), 1, weight.shape[1])
        rows.gather(groups.rows[:, None], np.zeros(1, np.int64), weight.detach().numpy(), found.numpy(), context.parts)
        ctx.rows, ctx.table_shape, ctx.sparse = groups.rows, weight.shape, context.sparse
        return found[:, 0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return row_gradient(ctx.rows, grad, ctx.table_shape, ctx.sparse), None, None


class _Vectors(torch.autograd.Function):
    """The vectors e (B, M, d) of distinct rows (U, d) and of numeric fields, and on demand sum_{i<j} e_i * e_j (B, d)."""

    @staticmethod
    def forward(ctx: Any, table_rows: Tensor | None, numeric: Tensor | None, values: Tensor | None, numbers: Tensor,
                groups: RowGroups | None, num_fields: int, with_pairs: bool,
                parts: Parts) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        ctx.set_materialize_grads(False)
        ctx.groups, ctx.num_fields, ctx.parts = groups, num_fields, parts
        total, pairs = summed(numbers, parts) if with_pairs else (None, None)
        ctx.save_for_backward(table_rows if with_pairs else None, numeric, values, total)
        return numbers.detach(), pairs

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, of_pairs: Tensor | None) -> tuple[Tensor | None, ...]:
        table_rows, numeric, values, total = ctx.saved_tensors
        of_rows = of_numeric = of_values = None
        if ctx.needs_input_grad[0] and (grad is not None or of_pairs is not None):
            own = None if grad is None else grad.contiguous().numpy()
            paired, groups = None, ctx.groups
            if of_pairs is not None:
                # The rows are a table of their own, of which row u is the one at `groups.rows[u]` of the whole table.
                groups = groups._replace(rows=np.arange(len(table_rows)))
                paired = PairGradient(of_pairs.contiguous().numpy(), total.numpy(), table_rows.detach().contiguous().numpy())
            of_rows = torch.from_numpy(rows.sum_by_row(own, groups, ctx.num_fields, paired, ctx.parts))
        if ctx.needs_input_grad[1]:
            of_numeric = torch.zeros_like(numeric)
            if grad is not None:
                of_numeric += torch.einsum("bvd,bv->vd", grad[:, ctx.num_fields :], values)
            if of_pairs is not None:
                of_numeric += values.t() @ (of_pairs * total) - (values.square().t() @ of_pairs) * numeric
        if ctx.needs_input_grad[2]:
            of_values = torch.zeros_like(values)
            if grad is not None:
                of_values += torch.einsum("bvd,vd->bv", grad[:, ctx.num_fields :], numeric)
            if of_pairs is not None:
                of_values += (of_pairs * total) @ numeric.t() - values * (of_pairs @ numeric.square().t())
        return of_rows, of_numeric, of_values, None, None, None, None, None


def row_gradient(table_rows: rows.TableRows, grad: Tensor, table_shape: torch.Size, sparse: bool) -> Tensor:
    """The gradient of a table from that of its rows (U, d)."""
    distinct = torch.from_numpy(table_rows)
    if not sparse:
        return grad.new_zeros(table_shape).index_copy_(0, distinct, grad)
    return torch.sparse_coo_tensor(distinct.unsqueeze(0), grad, table_shape, check_invariants=False, is_coalesced=True)
