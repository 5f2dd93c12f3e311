"""The twins of cross networks.

Those of matrices hand the look-up itself to their first layers, which multiply each distinct vector once.

DCN's runs in one pass over its input, and its gradients in another: all x_l lie on a line, x_l = alpha_l x_0 + B_l, with
B_l = sum_{m<l} b_m, alpha_0 = 1 and alpha_{l+1} = alpha_l (1 + x_0^T w_l) + B_l^T w_l. So a batch costs one narrow product,
whatever the number of layers.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.engines.fast.context import FastContext
from ctrlab.engines.fast.linear import FastLinear, Operand, plain
from ctrlab.kernels import cross as kernel
from ctrlab.kernels.parts import Parts
from ctrlab.models.dcnv2 import MatrixCrossNetwork
from ctrlab.models.gdcn import GatedCrossNetwork
from ctrlab.models.layers import CrossNetwork


class FastCrossNetwork(CrossNetwork):
    """The twin of `CrossNetwork`."""

    context: FastContext

    def forward(self, x0: Tensor | Operand) -> Tensor:
        """(B, width) -> (B, width)."""
        summed = self.biases.cumsum(0)  # B_1 .. B_L
        offsets = (functional.pad(summed[:-1], (0, 0, 1, 0)) * self.weights).sum(dim=1)
        return cross(plain(x0), self.weights, offsets, summed[-1], self.context.parts)


class FastMatrixCrossNetwork(MatrixCrossNetwork):
    """The twin of `MatrixCrossNetwork`."""

    context: FastContext

    def forward(self, x0: Tensor | Operand) -> Tensor:
        """(B, width) -> (B, width)."""
        c0 = plain(x0)
        x: Tensor | Operand = x0
        for layer in self.layers:
            x = c0 * _of_operand(layer, x) + plain(x)
        return plain(x)


class FastGatedCrossNetwork(GatedCrossNetwork):
    """The twin of `GatedCrossNetwork`."""

    context: FastContext

    def forward(self, c0: Tensor | Operand) -> Tensor:
        """(B, width) -> (B, width)."""
        first = plain(c0)
        c: Tensor | Operand = c0
        for layer, gate in zip(self.crosses, self.gates, strict=True):
            c = first * _of_operand(layer, c) * _of_operand(gate, c).sigmoid() + plain(c)
        return plain(c)


def _of_operand(layer: nn.Module, x: Tensor | Operand) -> Tensor:
    """layer(x); a layer that was replaced by something that begins with no linear twin gets the tensor."""
    first = layer
    while isinstance(first, nn.Sequential) and type(first).forward is nn.Sequential.forward and len(first):
        first = first[0]
    out: Tensor = layer(x if isinstance(first, FastLinear) else plain(x))
    return out


def cross(x0: Tensor, weights: Tensor, offsets: Tensor, shift: Tensor, parts: Parts) -> Tensor:
    """alpha_L x_0 + B_L with alpha_0 = 1, alpha_{l+1} = alpha_l (1 + x_0^T w_l) + o_l.

    Args:
        x0: (B, D). weights: (L, D), w_l. offsets: (L,), o_l = B_l^T w_l. shift: (D,), B_L.

    Returns:
        (B, D).
    """
    if torch.is_grad_enabled():
        out: Tensor = _Cross.apply(x0, weights, offsets, shift, parts)
        return out
    factors = 1 + x0 @ weights.t()
    alpha = factors[:, 0] + offsets[0]
    for factor, offset in zip(factors.unbind(dim=1)[1:], offsets.unbind()[1:], strict=True):
        alpha = alpha * factor + offset
    return torch.addcmul(shift, alpha.unsqueeze(1), x0)


class _Cross(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x0: Tensor, weights: Tensor, offsets: Tensor, shift: Tensor, parts: Parts) -> Tensor:
        x0, weights, offsets, shift = (tensor.detach().contiguous() for tensor in (x0, weights, offsets, shift))
        out, scalars = torch.empty_like(x0), x0.new_empty(len(x0), len(weights))
        arrays = (x0.numpy(), weights.numpy(), offsets.numpy(), shift.numpy(), out.numpy(), scalars.numpy())
        parts(lambda first, last: kernel.forward(*arrays, first, last), len(x0), elements=x0.numel())
        ctx.save_for_backward(x0, weights, offsets, scalars)
        ctx.parts = parts
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x0, weights, offsets, scalars = ctx.saved_tensors
        blocks = -(-len(x0) // kernel.BLOCK)
        of_x0, of_weights = torch.empty_like(x0), weights.new_zeros(blocks, *weights.shape)
        of_offsets, of_shift = weights.new_zeros(blocks, len(weights)), weights.new_zeros(blocks, x0.shape[1])
        given = (grad.contiguous().numpy(), x0.numpy(), weights.numpy(), offsets.numpy(), scalars.numpy())
        found = (of_x0.numpy(), of_weights.numpy(), of_offsets.numpy(), of_shift.numpy())
        ctx.parts(lambda first, last: kernel.backward(*given, *found, first, last), blocks, elements=x0.numel())
        return of_x0, of_weights.sum(0), of_offsets.sum(0), of_shift.sum(0), None
