"""Embedding look-ups of a training step. Gradients hold each distinct row of the batch once: no cost grows with the table.

`embedding(sparse=True)` keeps one gradient row for every occurrence and leaves merging them to the optimizer, whose `coalesce`
took 5 times as long as a sort. On the CPU the work is done by the compiled loops of `ctrlab.kernels.rows`, which are not bound
to sort; elsewhere by torch.
"""

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ctrlab.kernels import rows
from ctrlab.kernels.rows import RowGroups
from ctrlab.kernels.threads import in_background

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
    of_vectors = _OfVectors()
    vectors: Tensor
    vectors, of_pairs, of_rows = _FieldVectors.apply(ids, offsets, weight, values, numeric, sparse, before, of_vectors)
    if of_vectors.groups is not None and (values is None or not values.requires_grad):
        look_up = LookUp(of_pairs, of_rows, of_vectors, of_vectors.groups, offsets.numpy(), weight.detach(), values, numeric)
        vectors.ctrlab_look_up = look_up  # type: ignore[attr-defined]
    return vectors


@dataclass
class _OfVectors:
    """What a look-up and those who read its vectors tell each other.

    groups: of the batch. total: (B, d), the sum of a row's vectors, once somebody computed it.
    """

    groups: RowGroups | None = None
    total: Tensor | None = None


class LookUp(NamedTuple):
    """Where vectors were looked up: for those who can do better than to read them as B M vectors, and to send back as many
    gradients.

    of_pairs: (B, d), by which autograd knows a sum over the pairs of a row's vectors: that sum's gradient is to flow back to it.
    of_rows: (U, d), by which it knows the distinct table rows. of_vectors: whoever sends to `of_pairs` leaves the total there.
    groups: of the batch. offsets: (F,). weight: (num_rows, d), detached. values (B, V), numeric (V, d): or None.
    """

    of_pairs: Tensor
    of_rows: Tensor
    of_vectors: _OfVectors
    groups: RowGroups
    offsets: np.ndarray[Any, np.dtype[np.int64]]
    weight: Tensor
    values: Tensor | None
    numeric: Tensor | None

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self.of_pairs)

    def distinct_vectors(self) -> Tensor:
        """(U, d), in the order of `groups.rows`."""
        found = self.weight.new_empty(len(self.groups.rows), 1, self.weight.shape[1])
        rows.gather(self.groups.rows[:, None], np.zeros(1, np.int64), self.weight.numpy(), found.numpy())
        return found[:, 0]


def look_up_of(vectors: Tensor) -> LookUp | None:
    """Of vectors just as `look_up_fields` gave them, or side by side (`side_by_side`); None of all that was made of them."""
    return getattr(vectors, "ctrlab_look_up", None)


def side_by_side(vectors: Tensor) -> Tensor:
    """(B, M, d) -> (B, M d)."""
    flat = vectors.flatten(1)
    look_up = look_up_of(vectors)
    if look_up is not None:
        flat.ctrlab_look_up = look_up  # type: ignore[attr-defined]
    return flat


def sum_fields(ids: Tensor, offsets: Tensor, weight: Tensor, *, sparse: bool, before: BeforeReading | None = None) -> Tensor:
    """ids (B, F), weight (num_rows, 1) -> (B,): the sum over the fields of `weight[ids + offsets]`."""
    summed: Tensor = _FieldSums.apply(ids, offsets, weight, sparse, before)
    return summed


class _FieldVectors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, offsets: Tensor, weight: Tensor, values: Tensor | None, numeric: Tensor | None,
                sparse: bool, before: BeforeReading | None,
                of_vectors: _OfVectors) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        ctx.set_materialize_grads(False)
        ctx.ids, ctx.offsets, ctx.sparse, ctx.of_vectors = ids, offsets, sparse, of_vectors
        ctx.save_for_backward(weight, values, numeric)
        ctx.groups = grouped(ids, offsets, len(weight)) if compiled_for(weight) and ctx.needs_input_grad[2] else None
        if before is not None and ctx.groups is not None:
            before(ctx.groups.result().rows)
        num_fields = ids.shape[1]
        out = weight.new_empty(len(ids), num_fields + (0 if numeric is None else len(numeric)), weight.shape[1])
        if compiled_for(weight):
            rows.gather(_whole_numbers(ids), offsets.numpy(), weight.detach().numpy(), out.numpy())
        else:
            out[:, :num_fields] = functional.embedding(ids + offsets, weight)
        if numeric is not None and values is not None:
            torch.mul(values.unsqueeze(2), numeric, out=out[:, num_fields:])
        if ctx.groups is None:
            return out, None, None
        of_vectors.groups = ctx.groups.result()
        nothing = out.new_zeros(())
        return out, nothing.expand(len(ids), weight.shape[1]), nothing.expand(len(of_vectors.groups.rows), weight.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, of_pairs: Tensor | None, of_rows: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, values, numeric = ctx.saved_tensors
        num_fields, total = ctx.ids.shape[1], ctx.of_vectors.total
        of_weight = of_values = of_numeric = None
        if ctx.needs_input_grad[2]:
            if ctx.groups is not None:
                paired = None
                if of_pairs is not None:
                    paired = rows.OfPairs(of_pairs.contiguous().numpy(), total.numpy(), weight.detach().numpy())
                of_weight = _of_table(grad, paired, of_rows, ctx.groups.result(), num_fields, weight.shape, ctx.sparse)
            elif grad is not None:
                of_weight = _summed_by_torch(ctx.ids + ctx.offsets, grad[:, :num_fields], weight.shape, ctx.sparse)
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
            return torch.from_numpy(rows.sum_of_rows(_whole_numbers(ids), offsets.numpy(), weight.detach().numpy()))
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


def _whole_numbers(ids: Tensor) -> np.ndarray[Any, Any]:
    """As the compiled loops take them: one after the other in memory, of 32 or 64 bits."""
    return (ids if ids.dtype in (torch.int32, torch.int64) else ids.long()).contiguous().numpy()


class _Known(NamedTuple):
    """A grouping that was asked for, while its ids are in use."""

    ids: "weakref.ref[Tensor]"
    offsets: Tensor
    of_fields: tuple[int, ...]
    num_rows: int
    groups: "Future[RowGroups]"


class _Groups(threading.local):
    """What was grouped of ids in use: the tables of one model that are read by the same ids share the work."""

    def __init__(self) -> None:
        self.known: list[_Known] = []
        self.marker: np.ndarray[Any, np.dtype[np.int32]] = np.empty(0, np.int32)

    def of(self, ids: Tensor) -> list[_Known]:
        """Those of the very tensor `ids`; forgets those of tensors that are gone."""
        self.known = [each for each in self.known if each.ids() is not None]
        return [each for each in self.known if each.ids() is ids]


_groups = _Groups()


def _forget() -> None:
    _groups.known = []


# What another process groups never arrives.
os.register_at_fork(after_in_child=_forget)


def grouped(ids: Tensor, offsets: Tensor, num_rows: int) -> "Future[RowGroups]":
    """`rows.group_rows` of a batch's ids (B, F), beside what the caller does next; remembered while the tensor `ids` lives."""
    of_fields = tuple(offsets.tolist())
    for each in _groups.of(ids):
        if (each.of_fields, each.num_rows) == (of_fields, num_rows):
            return each.groups
    if len(_groups.marker) < num_rows:
        _groups.marker = np.zeros(num_rows, np.int32)
    # All groupings are made by one thread, one after the other: they can share the marker.
    groups = in_background(rows.group_rows, _whole_numbers(ids), offsets.numpy(), _groups.marker[:num_rows])
    _groups.known.append(_Known(weakref.ref(ids), offsets, of_fields, num_rows, groups))
    return groups


def group_ahead(ids: Tensor, like: Tensor) -> None:
    """Begin to group `ids` in all ways in which `like` was, so that they are ready when they are looked up."""
    for each in _groups.of(like):
        grouped(ids, each.offsets, each.num_rows)


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
