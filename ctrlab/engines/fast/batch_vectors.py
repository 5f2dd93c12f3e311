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
from ctrlab.engines.fast.pairs import pairs_of_rows, sum_of_pairs, summed
from ctrlab.kernels import rows
from ctrlab.kernels.parts import Parts
from ctrlab.kernels.rows import ByField, RowGroups


class BatchVectors:
    """The vectors of a batch: `weight[ids + offsets]`, and after them `values` times `numeric`. M = F + V.

    ids: (B, F) integer. offsets: (F,) int64. weight: (num_rows, d). values: (B, V) and numeric: (V, d), or None.
    """

    def __init__(
        self, context: FastContext, ids: Tensor, offsets: Tensor, weight: Tensor, values: Tensor | None = None,
        numeric: Tensor | None = None,
    ) -> None:  # fmt: skip
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

    @cached_property
    def vectors(self) -> Tensor:
        """(B, M, d)."""
        if not torch.is_grad_enabled():
            return self.numbers
        table_rows = self.rows if self.trains else None
        groups = self.groups if self.trains else None
        vectors: Tensor = _Vectors.apply(
            table_rows, self.numeric, self.values, self.numbers, groups, self.ids.shape[1], self.context.parts
        )
        return vectors

    @cached_property
    def pairs(self) -> Tensor:
        """(B, d): sum_{i<j} e_i * e_j."""
        parts = self.context.parts
        if self.trains and (self.values is None or not self.values.requires_grad):
            return pairs_of_rows(self.rows, self.numeric, self.values, self.numbers, self.groups, parts)
        return sum_of_pairs(self.vectors, parts) if torch.is_grad_enabled() else summed(self.numbers, parts)[1]


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
    """The vectors (B, M, d) of distinct rows (U, d), and of numeric fields."""

    @staticmethod
    def forward(ctx: Any, table_rows: Tensor | None, numeric: Tensor | None, values: Tensor | None, numbers: Tensor,
                groups: RowGroups | None, num_fields: int, parts: Parts) -> Tensor:  # fmt: skip
        ctx.groups, ctx.num_fields, ctx.parts = groups, num_fields, parts
        ctx.save_for_backward(numeric, values)
        return numbers.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        numeric, values = ctx.saved_tensors
        num_fields = ctx.num_fields
        of_rows = of_numeric = of_values = None
        if ctx.needs_input_grad[0]:
            of_rows = torch.from_numpy(rows.sum_by_row(grad.contiguous().numpy(), ctx.groups, num_fields, parts=ctx.parts))
        if ctx.needs_input_grad[1]:
            of_numeric = torch.einsum("bvd,bv->vd", grad[:, num_fields:], values)
        if ctx.needs_input_grad[2]:
            of_values = torch.einsum("bvd,vd->bv", grad[:, num_fields:], numeric)
        return of_rows, of_numeric, of_values, None, None, None, None


def row_gradient(table_rows: rows.TableRows, grad: Tensor, table_shape: torch.Size, sparse: bool) -> Tensor:
    """The gradient of a table from that of its rows (U, d)."""
    distinct = torch.from_numpy(table_rows)
    if not sparse:
        return grad.new_zeros(table_shape).index_copy_(0, distinct, grad)
    return torch.sparse_coo_tensor(distinct.unsqueeze(0), grad, table_shape, check_invariants=False, is_coalesced=True)
