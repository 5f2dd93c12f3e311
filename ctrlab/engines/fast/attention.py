"""AutoInt's self-attention over fields in one pass over the rows; see `kernels/attention.py`."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.engines.fast.context import FastContext, is_hooked
from ctrlab.engines.fast.linear import FastLinear, Operand, plain
from ctrlab.kernels import attention as kernel
from ctrlab.kernels.parts import Parts
from ctrlab.kernels.vectors import LANES
from ctrlab.models.autoint import FieldAttention

#: A batch is split into at most so many blocks with gradients of the weights of their own, which are then summed in order.
_BLOCKS = 64


class FastFieldAttention(FieldAttention):
    """The twin of `FieldAttention`."""

    context: FastContext

    def forward(self, e: Tensor | Operand) -> Tensor:
        """(B, M, width) -> (B, M, attention_dim)."""
        e = plain(e)
        projections = (self.query, self.key, self.value)
        if e.dtype != torch.float32 or (self.dropout and self.training):
            return super().forward(e)
        if all(map(_is_projection, projections)):
            return self._in_one_pass(e)
        query, key, value = (part(e) for part in projections)
        return self.combined(attend(query, key, value, heads=self.heads, scale=self.scale, parts=self.context.parts), e)

    def _in_one_pass(self, e: Tensor) -> Tensor:
        """Projections, attention and, where they are the usual ones, residual and ReLU."""
        adds_e = type(self.residual) is nn.Identity
        ends = type(self.norm) is nn.Identity and (adds_e or self.residual is None)
        weights = (self.query.weight, self.key.weight, self.value.weight)
        parts = self.context.parts
        renewed = attend_projected(e, *weights, heads=self.heads, scale=self.scale, residual=adds_e, relu=ends, parts=parts)
        if ends:
            return renewed
        if self.residual is not None and not adds_e:
            renewed = renewed + self.residual(e)
        return functional.relu(self.norm(renewed))


def _is_projection(part: nn.Module) -> bool:
    """Whether nothing but its weight matters."""
    return type(part) is FastLinear and part._parameters.get("bias") is None and not is_hooked(part)


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int, scale: float, parts: Parts) -> Tensor:
    """softmax_k(scale <query_m, key_k>) value_k for each head, as torch's `scaled_dot_product_attention`.

    Args:
        query, key, value: (B, M, A), heads side by side.

    Returns:
        (B, M, A).
    """
    width = query.shape[2] // heads
    query, key, value = (_padded_heads(part, heads) for part in (query, key, value))
    out: Tensor = _Attention.apply(query, key, value, heads, scale, parts)
    return out if width % LANES == 0 else out.unflatten(2, (heads, -1))[..., :width].flatten(2)


def attend_projected(
    e: Tensor, query: Tensor, key: Tensor, value: Tensor, *, heads: int, scale: float, residual: bool, relu: bool, parts: Parts
) -> Tensor:
    """`attend` over the products of e with three matrices; plus e where `residual`, then ReLU where `relu`.

    Args:
        e: (B, M, D). query, key, value: (A, D), weights.
        residual: A must be D.

    Returns:
        (B, M, A).
    """
    width, missing = len(query) // heads, -e.shape[2] % LANES
    if width % LANES == 0 and not missing:
        out: Tensor = _ProjectedAttention.apply(e, torch.cat([query, key, value]), heads, scale, residual, relu, parts)
        return out
    weight = torch.cat([_padded_heads(part.t().unsqueeze(0), heads)[0].t() for part in (query, key, value)])
    padded = (functional.pad(part, (0, missing)) for part in (e, weight))
    out = _ProjectedAttention.apply(*padded, heads, scale, False, False, parts)
    out = out.unflatten(2, (heads, -1))[..., :width].flatten(2)
    out = out + e if residual else out
    return out.relu() if relu else out


def _padded_heads(x: Tensor, heads: int) -> Tensor:
    """(B, M, A) -> the same with each head zero-padded to a multiple of 8."""
    missing = -(x.shape[2] // heads) % LANES
    return functional.pad(x.unflatten(2, (heads, -1)), (0, missing)).flatten(2) if missing else x


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float, parts: Parts) -> Tensor:
        query, key, value = (part.detach().contiguous() for part in (query, key, value))
        out = torch.empty_like(query)
        given = (*_flat(query, key, value, out), query.shape[1], query.shape[2], heads, scale)
        parts(lambda first, last: kernel.forward(first, last, *given), len(query), elements=query.numel())
        ctx.save_for_backward(query, key, value)
        ctx.heads, ctx.scale, ctx.parts = heads, scale, parts
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        outs = [torch.empty_like(part) for part in saved]
        given = (*_flat(*saved, grad.contiguous(), *outs), grad.shape[1], grad.shape[2], ctx.heads, ctx.scale)
        ctx.parts(lambda first, last: kernel.backward(first, last, *given), len(grad), elements=grad.numel())
        return *outs, None, None, None


class _ProjectedAttention(torch.autograd.Function):
    """e (B, M, D), weight (3 A, D): of queries, keys and values."""

    @staticmethod
    def forward(ctx: Any, e: Tensor, weight: Tensor, heads: int, scale: float, residual: bool, relu: bool,
                parts: Parts) -> Tensor:  # fmt: skip
        e, weight = e.detach().contiguous(), weight.detach().contiguous()
        ctx.sizes = (e.shape[1], e.shape[2], len(weight) // 3, heads, scale, residual, relu)
        out = e.new_empty(len(e), e.shape[1], len(weight) // 3)
        given = (*_flat(e, weight.t().contiguous(), out), *ctx.sizes)
        parts(lambda first, last: kernel.forward_projected(first, last, *given), len(e), elements=e.numel())
        ctx.save_for_backward(e, weight, out if relu else e)
        ctx.parts = parts
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        e, weight, out = ctx.saved_tensors
        of_e = torch.empty_like(e)
        blocks = weight.new_zeros(max(1, min(_BLOCKS, len(e))), *weight.shape)
        arrays = _flat(e, weight, weight.t().contiguous(), out, grad.contiguous(), of_e, blocks)
        given = (*arrays, *ctx.sizes, len(blocks))
        ctx.parts(lambda first, last: kernel.backward_projected(first, last, *given), len(blocks), elements=e.numel())
        return of_e, blocks.sum(0), None, None, None, None, None


def _flat(*tensors: Tensor) -> list[Any]:
    return [tensor.numpy().reshape(-1) for tensor in tensors]
