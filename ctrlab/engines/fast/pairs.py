"""sum_{i<j} e_i * e_j of vectors and its gradient, in one pass each (FM, lemma 3.1; NFM, eq. 4).

Those of looked-up vectors are computed with the look-up (`batch_vectors.py`).
"""

from typing import Any

import torch
from torch import Tensor

from ctrlab.kernels import pairs as kernel
from ctrlab.kernels.parts import Parts


def sum_of_pairs(e: Tensor, parts: Parts) -> Tensor:
    """e (B, M, d) -> (B, d)."""
    pairs: Tensor = _SumOfPairs.apply(e, parts)
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
