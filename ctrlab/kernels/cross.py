"""DCN's cross network in one pass over its input, and its gradients in another.

All its x_l lie on a line, x_l = alpha_l x_0 + B_l: what is to be computed of a row are scalars.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctrlab.kernels.compile import REORDER_SUMS, compiled
from ctrlab.kernels.lookup import compiled_for
from ctrlab.kernels.threads import in_parts

_vectorised = compiled(fastmath=REORDER_SUMS)

#: Rows whose gradients of the weights are added up by one thread: their sum does not depend on the number of threads.
_BLOCK = 256


def cross(x0: Tensor, weights: Tensor, offsets: Tensor, shift: Tensor) -> Tensor:
    """alpha_L x_0 + B_L with alpha_0 = 1, alpha_{l+1} = alpha_l (1 + x_0^T w_l) + o_l.

    Args:
        x0: (B, D). weights: (L, D), w_l. offsets: (L,), o_l = B_l^T w_l. shift: (D,), B_L.

    Returns:
        (B, D).
    """
    if torch.is_grad_enabled() and compiled_for(x0) and compiled_for(weights):
        out: Tensor = _Cross.apply(x0, weights, offsets, shift)
        return out
    factors = 1 + x0 @ weights.t()
    alpha = factors[:, 0] + offsets[0]
    for factor, offset in zip(factors.unbind(dim=1)[1:], offsets.unbind()[1:], strict=True):
        alpha = alpha * factor + offset
    return torch.addcmul(shift, alpha.unsqueeze(1), x0)


class _Cross(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x0: Tensor, weights: Tensor, offsets: Tensor, shift: Tensor) -> Tensor:
        x0, weights, offsets, shift = (tensor.detach().contiguous() for tensor in (x0, weights, offsets, shift))
        out, scalars = torch.empty_like(x0), x0.new_empty(len(x0), len(weights))
        arrays = (x0.numpy(), weights.numpy(), offsets.numpy(), shift.numpy(), out.numpy(), scalars.numpy())
        in_parts(lambda first, last: _forward(*arrays, first, last), len(x0), elements=x0.numel())
        ctx.save_for_backward(x0, weights, offsets, scalars)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x0, weights, offsets, scalars = ctx.saved_tensors
        blocks = -(-len(x0) // _BLOCK)
        of_x0, of_weights = torch.empty_like(x0), weights.new_zeros(blocks, *weights.shape)
        of_offsets, of_shift = weights.new_zeros(blocks, len(weights)), weights.new_zeros(blocks, x0.shape[1])
        given = (grad.contiguous().numpy(), x0.numpy(), weights.numpy(), offsets.numpy(), scalars.numpy())
        found = (of_x0.numpy(), of_weights.numpy(), of_offsets.numpy(), of_shift.numpy())
        in_parts(lambda first, last: _backward(*given, *found, first, last), blocks, elements=x0.numel())
        return of_x0, of_weights.sum(0), of_offsets.sum(0), of_shift.sum(0)


@_vectorised
def _forward(x0: Any, weights: Any, offsets: Any, shift: Any, out: Any, scalars: Any, first: int, last: int) -> None:
    for b in range(first, last):
        alpha = np.float32(1)
        for layer in range(weights.shape[0]):
            scalar = np.float32(0)
            for j in range(x0.shape[1]):
                scalar += x0[b, j] * weights[layer, j]
            scalars[b, layer] = scalar
            alpha = alpha * (np.float32(1) + scalar) + offsets[layer]
        for j in range(x0.shape[1]):
            out[b, j] = alpha * x0[b, j] + shift[j]


@_vectorised
def _backward(grad: Any, x0: Any, weights: Any, offsets: Any, scalars: Any, of_x0: Any, of_weights: Any, of_offsets: Any,
              of_shift: Any, first: int, last: int) -> None:  # fmt: skip
    layers, width = weights.shape
    alphas = np.empty(layers + 1, np.float32)
    for block in range(first, last):
        for b in range(block * _BLOCK, min(x0.shape[0], (block + 1) * _BLOCK)):
            alphas[0] = 1
            for layer in range(layers):
                alphas[layer + 1] = alphas[layer] * (np.float32(1) + scalars[b, layer]) + offsets[layer]
            of_alpha = np.float32(0)
            for j in range(width):
                of_alpha += grad[b, j] * x0[b, j]
                of_x0[b, j] = alphas[layers] * grad[b, j]
                of_shift[block, j] += grad[b, j]
            for layer in range(layers - 1, -1, -1):
                of_offsets[block, layer] += of_alpha
                of_scalar = of_alpha * alphas[layer]
                for j in range(width):
                    of_x0[b, j] += of_scalar * weights[layer, j]
                    of_weights[block, layer, j] += of_scalar * x0[b, j]
                of_alpha *= np.float32(1) + scalars[b, layer]
