"""Embedding look-ups of a training step. Gradients hold each distinct row of the batch once: no cost grows with the table.

`embedding(sparse=True)` keeps one gradient row for every occurrence and leaves merging them to the optimizer, whose `coalesce`
took 5 times as long as a sort. On the CPU the work is done by the compiled loops of `ctrlab.kernels.rows`, which are not bound
to sort; elsewhere by torch.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ctrlab.kernels import rows
from ctrlab.kernels.groups import grouped, whole_numbers
from ctrlab.kernels.origin import LookUp, OfVectors, mark, remembers_look_ups
from ctrlab.kernels.rows import RowGroups

#: Called with the distinct table rows (U,) int64 of a batch before they are read.
BeforeReading = Callable[[np.ndarray[Any, np.dtype[np.int64]]], None]


def look_up_rows(ids: Tensor, weight: Tensor, *, sparse: bool, before: BeforeReading | None = None) -> Tensor:
    """ids (...,) integer of `weight` (num_rows, d) -> rows (..., d); see `look_up_fields`."""
    flat = look_up_fields(ids.reshape(-1, 1), ids.new_zeros(1, dtype=torch.int64), weight, sparse=sparse, before=before)
    return flat.view(*ids.shape, weight.shape[1])


def look_up_fields(
    ids: Tensor, offsets: Tensor, weight: Tensor, values: Tensor | None = None, numeric: Tensor | None = None, *, sparse: bool,
    before: BeforeReading | None = None,
) -> Tensor:  # fmt: skip
    """The vectors of a batch: `weight[ids + offsets]`, and behind them `values` times `numeric`.

    Args:
        ids: (B, F) integer. offsets: (F,) int64. weight: (num_rows, d).
        values: (B, V) float32 and numeric (V, d), or None.
        sparse: whether the gradient of `weight` is to be a sparse one of the batch's rows, coalesced and rising, or dense.
        before: what to do with `weight`'s rows first; only where the compiled loops take it (`compiled_for`).

    Returns:
        (B, F + V, d).
    """
    of_vectors = OfVectors()
    vectors: Tensor
    vectors, of_pairs, of_rows = _FieldVectors.apply(ids, offsets, weight, values, numeric, sparse, before, of_vectors)
    if remembers_look_ups() and compiled_for(weight) and (values is None or not values.requires_grad):
        mark(vectors, LookUp(of_pairs, of_rows, of_vectors, ids, offsets, weight.detach(), values, numeric))
    return vectors


def sum_fields(ids: Tensor, offsets: Tensor, weight: Tensor, *, sparse: bool, before: BeforeReading | None = None) -> Tensor:
    """ids (B, F), weight (num_rows, 1) -> (B,): the sum over the fields of `weight[ids + offsets]`."""
    summed: Tensor = _FieldSums.apply(ids, offsets, weight, sparse, before)
    return summed


class _FieldVectors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, offsets: Tensor, weight: Tensor, values: Tensor | None, numeric: Tensor | None,
                sparse: bool, before: BeforeReading | None,
                of_vectors: OfVectors) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        ctx.set_materialize_grads(False)
        ctx.ids, ctx.offsets, ctx.sparse, ctx.of_vectors = ids, offsets, sparse, of_vectors
        ctx.table_shape = weight.shape
        ctx.save_for_backward(values, numeric)
        ctx.groups = grouped(ids, offsets, len(weight)) if compiled_for(weight) and ctx.needs_input_grad[2] else None
        if before is not None and ctx.groups is not None:
            before(ctx.groups.result().rows)
        num_fields = ids.shape[1]
        out = weight.new_empty(len(ids), num_fields + (0 if numeric is None else len(numeric)), weight.shape[1])
        if compiled_for(weight):
            rows.gather(whole_numbers(ids), offsets.numpy(), weight.detach().numpy(), out.numpy())
        else:
            out[:, :num_fields] = functional.embedding(ids + offsets, weight)
        if numeric is not None and values is not None:
            torch.mul(values.unsqueeze(2), numeric, out=out[:, num_fields:])
        if ctx.groups is None:
            return out, None, None
        nothing, num_distinct = out.new_zeros(()), len(ctx.groups.result().rows)
        return out, nothing.expand(len(ids), weight.shape[1]), nothing.expand(num_distinct, weight.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, of_pairs: Tensor | None, of_rows: Tensor | None) -> tuple[Tensor | None, ...]:
        values, numeric = ctx.saved_tensors
        num_fields, total = ctx.ids.shape[1], ctx.of_vectors.total
        of_weight = of_values = of_numeric = None
        if ctx.needs_input_grad[2]:
            if ctx.groups is not None:
                paired = None
                if of_pairs is not None:
                    paired = rows.OfPairs(of_pairs.contiguous().numpy(), total.numpy(), ctx.of_vectors.weight.numpy())
                of_weight = _of_table(grad, paired, of_rows, ctx.groups.result(), num_fields, ctx.table_shape, ctx.sparse)
            elif grad is not None:
                of_weight = _summed_by_torch(ctx.ids + ctx.offsets, grad[:, :num_fields], ctx.table_shape, ctx.sparse)
        if ctx.needs_input_grad[3] and grad is not None:  # nobody is told of a look-up whose values have a gradient
            of_values = torch.einsum("bvd,vd->bv", grad[:, num_fields:], numeric)
        if ctx.needs_input_grad[4]:
            of_numeric = torch.zeros_like(numeric)
            if grad is not None:
                of_numeric += torch.einsum("bvd,bv->vd", grad[:, num_fields:], values)
            if of_pairs is not None:
                of_numeric += values.t() @ (of_pairs * total) - (values.square().t() @ of_pairs) * numeric
        return None, None, of_weight, of_values, of_numeric, None, None, None


def _of_table(grad: Tensor | None, paired: rows.OfPairs | None, of_rows: Tensor | None, groups: RowGroups, num_fields: int,
              table_shape: torch.Size, sparse: bool) -> Tensor | None:  # fmt: skip
    """The table's gradient, of all that vectors (B, M, d), pairs of them, and distinct rows (U, d) have one of."""
    if grad is not None or paired is not None:
        own = None if grad is None else grad.contiguous().numpy()
        summed = torch.from_numpy(rows.sum_by_row(own, groups, num_fields, paired))
        of_rows = summed if of_rows is None else summed.add_(of_rows)
    return None if of_rows is None else _row_gradient(torch.from_numpy(groups.rows), of_rows, table_shape, sparse)


class _FieldSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, offsets: Tensor, weight: Tensor, sparse: bool, before: BeforeReading | None) -> Tensor:
        ctx.ids, ctx.offsets, ctx.table_shape, ctx.sparse = ids, offsets, weight.shape, sparse
        ctx.groups = None
        if compiled_for(weight):
            ctx.groups = grouped(ids, offsets, len(weight)) if ctx.needs_input_grad[2] else None
            if before is not None and ctx.groups is not None:
                before(ctx.groups.result().rows)
            return torch.from_numpy(rows.sum_of_rows(whole_numbers(ids), offsets.numpy(), weight.detach().numpy()))
        return functional.embedding(ids + offsets, weight).sum(dim=(1, 2))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.needs_input_grad[2]:
            return None, None, None, None, None
        if ctx.groups is not None:
            groups = ctx.groups.result()
            summed = torch.from_numpy(rows.sum_of_scalars_by_row(grad.contiguous().numpy(), groups, ctx.ids.shape[1]))
            return None, None, _row_gradient(torch.from_numpy(groups.rows), summed, ctx.table_shape, ctx.sparse), None, None
        each = grad.view(-1, 1, 1).expand(*ctx.ids.shape, 1)
        return None, None, _summed_by_torch(ctx.ids + ctx.offsets, each, ctx.table_shape, ctx.sparse), None, None


def compiled_for(tensor: Tensor) -> bool:
    """Whether the compiled loops take this tensor: float32 numbers in the processor's memory, in no graph that is compiled."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and not torch.compiler.is_compiling()


def _row_gradient(distinct: Tensor, summed: Tensor, table_shape: torch.Size, sparse: bool) -> Tensor:
    if not sparse:
        return summed.new_zeros(table_shape).index_copy_(0, distinct, summed)
    return torch.sparse_coo_tensor(distinct.unsqueeze(0), summed, table_shape, check_invariants=False, is_coalesced=True)


def _summed_by_torch(table_rows: Tensor, grad: Tensor, table_shape: torch.Size, sparse: bool) -> Tensor:
    """The same for any device and precision: a sort of the ids and one `index_add_`."""
    num_rows, width = table_shape
    short = table_rows if num_rows > torch.iinfo(torch.int32).max else table_rows.int()  # its radix sort is the faster one
    distinct, position = torch.unique(short, return_inverse=True)
    summed = grad.new_zeros(len(distinct), width).index_add_(0, position.flatten(), grad.reshape(-1, width))
    return _row_gradient(distinct.long(), summed, table_shape, sparse)
