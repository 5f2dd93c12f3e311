"""sum_{i<j} e_i * e_j of vectors, or of looked-up rows, and its gradient, in one pass each (FM, lemma 3.1; NFM, eq. 4)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctrlab.kernels import pairs as kernel
from ctrlab.kernels.parts import Parts
from ctrlab.kernels.rows import PairGradient, RowGroups, sum_by_row


def sum_of_pairs(e: Tensor, parts: Parts) -> Tensor:
    """e (B, M, d) -> (B, d)."""
    pairs: Tensor = _SumOfPairs.apply(e, parts)
    return pairs


def pairs_of_rows(
    rows: Tensor, numeric: Tensor | None, values: Tensor | None, numbers: Tensor, groups: RowGroups, parts: Parts
) -> Tensor:
    """The same of looked-up vectors, with the gradients of a row's occurrences summed as they are computed.

    Args:
        rows: (U, d), distinct. numeric: (V, d) and values: (B, V), or None. numbers: (B, M, d), the vectors.
    """
    pairs: Tensor = _PairsOfRows.apply(rows, numeric, values, numbers, groups, parts)
    return pairs


def summed(e: Tensor, parts: Parts) -> tuple[Tensor, Tensor]:
    """e (B, M, d) -> the sum of the vectors and that of their pairs, (B, d) each."""
    total, out = e.new_empty(len(e), e.shape[2]), e.new_empty(len(e), e.shape[2])
    arrays = (e.detach().contiguous().numpy(), total.numpy(), out.numpy())
    parts(lambda first, last: kernel.forward(*arrays, first, last), len(e), elements=e.numel())
    return total, out


class _SumOfPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor, parts: Parts) -> Tensor:
        total, out = summed(e, parts)
        ctx.save_for_backward(e, total)
        ctx.parts = parts
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        e, total = ctx.saved_tensors
        out = e.new_empty(e.shape)
        arrays = (grad.contiguous().numpy(), e.detach().contiguous().numpy(), total.numpy(), out.numpy())
        ctx.parts(lambda first, last: kernel.backward(*arrays, first, last), len(e), elements=e.numel())
        return out, None


class _PairsOfRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, numeric: Tensor | None, values: Tensor | None, numbers: Tensor, groups: RowGroups,
                parts: Parts) -> Tensor:  # fmt: skip
        total, out = summed(numbers, parts)
        ctx.save_for_backward(rows, numeric, values, total)
        ctx.groups, ctx.parts, ctx.num_fields = groups, parts, numbers.shape[1] - (0 if numeric is None else len(numeric))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, numeric, values, total = ctx.saved_tensors
        of_rows = of_numeric = None
        if ctx.needs_input_grad[0]:
            # The rows are a table of their own, of which row u is the one at `groups.rows[u]` of the whole table.
            groups = ctx.groups._replace(rows=np.arange(len(rows)))
            of_pairs = PairGradient(grad.contiguous().numpy(), total.numpy(), rows.detach().contiguous().numpy())
            of_rows = torch.from_numpy(sum_by_row(None, groups, ctx.num_fields, of_pairs, ctx.parts))
        if ctx.needs_input_grad[1]:
            of_numeric = values.t() @ (grad * total) - (values.square().t() @ grad) * numeric
        return of_rows, of_numeric, None, None, None, None
