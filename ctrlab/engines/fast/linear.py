"""Linear layers on the CPU: by the chosen matrix library, with the ReLU after them, and in bfloat16 where asked.

In bfloat16 the numbers between two linear layers stay in bfloat16; products are summed in float32 either way.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from ctrlab.engines.fast.context import FastContext
from ctrlab.engines.products import Products


class Operand:
    """A value that a layer of a twin returns in place of a tensor, for a linear layer that can compute the two as one."""

    def plain(self) -> Tensor:
        """The tensor it stands for."""
        raise NotImplementedError

    def through(self, layer: "FastLinear") -> Tensor:
        """`layer(self.plain())`."""
        raise NotImplementedError


def plain(x: Tensor | Operand) -> Tensor:
    """The tensor itself."""
    return x.plain() if isinstance(x, Operand) else x


class FastLinear(nn.Linear):
    """The twin of `nn.Linear`.

    relu: whether it applies the ReLU that follows it. low: whether it multiplies in bfloat16. stays: whether its output then
    stays in bfloat16, for the next linear layer to read.
    """

    context: FastContext
    relu: bool = False
    stays: bool = False

    @property
    def low(self) -> bool:
        """Layers with one input or output stay in float32."""
        return self.context.compute_dtype == "bfloat16" and min(self.weight.shape) > 1

    def fuse(self, *, relu: bool, before_linear: bool) -> Self:
        """Apply the ReLU that follows; `before_linear`: another linear layer is the next to read the output."""
        self.relu, self.stays = relu, before_linear and self.low
        return self

    def forward(self, x: Tensor | Operand) -> Tensor:
        """(..., in) -> (..., out)."""
        return x.through(self) if isinstance(x, Operand) else self.multiply(x)

    def multiply(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        flat = x.reshape(-1, x.shape[-1])
        if not self.low:
            flat = flat.to(self.weight.dtype)
        out: Tensor = _Linear.apply(flat, self.weight, self.bias, self.relu, self.low, self.context.products)
        if out.dtype != x.dtype and not self.stays:
            out = out.to(self.weight.dtype)
        return out.view(*x.shape[:-1], out.shape[-1])

    def cast_operand(self, matrix: Tensor) -> Tensor:
        """An operand of its products, in the precision that it multiplies in."""
        return matrix.to(torch.bfloat16) if self.low else matrix.float()

    def epilogue(self, summed: Tensor) -> Tensor:
        """x W^T (B, out) in float32, which it may overwrite -> the output: plus bias, ReLU, precision."""
        if self.bias is not None:
            summed += self.bias.detach()
        if self.relu:
            summed.relu_()
        return summed.to(torch.bfloat16) if self.stays else summed


class _Linear(torch.autograd.Function):
    """y = x W^T + b, then max(y, 0) if asked; x (B, in) float32 or bfloat16, W (out, in) and b (out,) float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, low: bool, products: Products) -> Tensor:
        read = x.to(torch.bfloat16) if low else x
        matrix = weight.to(torch.bfloat16) if low else weight
        offset = bias.to(torch.bfloat16) if low and bias is not None else bias
        out = products.linear(read, matrix, offset, relu=relu)
        ctx.save_for_backward(read, matrix, out if relu else None)
        ctx.dtypes, ctx.products = (x.dtype, weight.dtype), products
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, out = ctx.saved_tensors
        products: Products = ctx.products
        grad = grad.to(x.dtype)
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = products.product("input", grad, weight.t()).to(ctx.dtypes[0])
        if ctx.needs_input_grad[1]:
            of_weight = products.product("weight", grad.t(), x.t(), batch=1).to(ctx.dtypes[1])
        if ctx.needs_input_grad[2]:
            # Summed in the gradient's precision, in float32 inside: asked for a float32 result, torch copies all gradients first.
            of_bias = grad.sum(0).to(ctx.dtypes[1])
        return of_x, of_weight, of_bias, None, None, None
