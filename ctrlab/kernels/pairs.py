"""sum_{i<j} e_i * e_j, elementwise, in one pass over the vectors, and its gradient in another."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctrlab.kernels.compile import REORDER_SUMS, compiled
from ctrlab.kernels.lookup import compiled_for
from ctrlab.kernels.origin import LookUp, look_up_of
from ctrlab.kernels.threads import in_parts

_vectorised = compiled(fastmath=REORDER_SUMS)


def sum_of_pairs(e: Tensor) -> Tensor:
    """e (B, M, d) -> (B, d): half of the square of the sum less the sum of the squares, in O(M d) (FM, lemma 3.1; NFM, eq. 4)."""
    look_up = look_up_of(e)
    if torch.is_grad_enabled() and e.requires_grad and compiled_for(e):
        link = None if look_up is None else look_up.of_pairs
        pairs: Tensor = _SumOfPairs.apply(e) if link is None else _PairsOfLookUp.apply(link, e.detach(), look_up)
        return pairs
    if look_up is not None:
        return _summed(e)[1]
    return 0.5 * (e.sum(dim=1).square() - e.square().sum(dim=1))


class _SumOfPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor) -> Tensor:
        e = e.detach().contiguous()
        total, out = _summed(e)
        ctx.save_for_backward(e, total)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        e, total = ctx.saved_tensors
        out = torch.empty_like(e)
        arrays = (grad.contiguous().numpy(), e.numpy(), total.numpy(), out.numpy())
        in_parts(lambda first, last: _backward(*arrays, first, last), len(e), elements=e.numel())
        return out


class _PairsOfLookUp(torch.autograd.Function):
    """The same for vectors straight from their look-up. It only hands the gradient on: what is to be done with it, and with the
    total left here, the look-up does where it sums the gradients of a table row."""

    @staticmethod
    def forward(ctx: Any, of_pairs: Tensor, e: Tensor, look_up: LookUp) -> Tensor:
        look_up.of_vectors.total, out = _summed(e)
        look_up.of_vectors.weight = look_up.weight
        ctx.save_for_backward(look_up.weight)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        ctx.saved_tensors  # noqa: B018 - raises where the table, which the look-up will read, has changed
        return grad, None, None


def _summed(e: Tensor) -> tuple[Tensor, Tensor]:
    """e (B, M, d) -> the sum of the vectors and that of their pairs, (B, d) each."""
    total, out = e.new_empty(len(e), e.shape[2]), e.new_empty(len(e), e.shape[2])
    arrays = (e.numpy(), total.numpy(), out.numpy())
    in_parts(lambda first, last: _forward(*arrays, first, last), len(e), elements=e.numel())
    return total, out


@_vectorised
def _forward(e: Any, total: Any, out: Any, first: int, last: int) -> None:
    for b in range(first, last):
        for j in range(e.shape[2]):
            total[b, j] = 0
            out[b, j] = 0
        for f in range(e.shape[1]):
            for j in range(e.shape[2]):
                total[b, j] += e[b, f, j]
                out[b, j] += e[b, f, j] * e[b, f, j]
        for j in range(e.shape[2]):
            out[b, j] = np.float32(0.5) * (total[b, j] * total[b, j] - out[b, j])


@_vectorised
def _backward(grad: Any, e: Any, total: Any, out: Any, first: int, last: int) -> None:
    """Of sum_{i<j} e_i e_j with respect to e_i: the sum of the others."""
    for b in range(first, last):
        for f in range(e.shape[1]):
            for j in range(e.shape[2]):
                out[b, f, j] = grad[b, j] * (total[b, j] - e[b, f, j])
