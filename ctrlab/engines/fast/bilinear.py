"""FiBiNET's bilinear pairs and the linear layer that reads them as one, without the pairs of a whole batch in memory.

The pairs are p_ij = (W_ij e_i) * e_j, and the same for the scaled vectors v_i = a_i e_i: as nothing is added to W_ij e_i, the
latter are a_i a_j p_ij. A row of 39 fields has 23,712 such numbers, a batch of 4,096 rows 388 MB of them, and as many gradients.
Here a few pairs are computed at a time, for all rows, multiplied by their columns of the layer's weight, and computed again in
the backward pass.

Shapes: B rows, M vectors a row, d their width, P = M (M - 1) / 2 pairs, H outputs of the layer, C pairs at a time.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctrlab.engines.fast.context import FastContext
from ctrlab.engines.fast.linear import FastLinear, Operand, plain
from ctrlab.kernels import bilinear as kernel
from ctrlab.models.fibinet import PairInteraction


class FastPairInteraction(PairInteraction):
    """The twin of `PairInteraction`. joins: whether the linear layer that reads the pairs takes an `Operand`."""

    context: FastContext
    joins: bool = False

    def forward(self, e: Tensor | Operand) -> Tensor | Operand:  # type: ignore[override]
        """(B, M, d) -> (B, M (M - 1) d)."""
        return BilinearPairs(self, plain(e)) if self.joins else super().forward(plain(e))


class BilinearPairs(Operand):
    """The pairs of vectors e (B, M, d)."""

    def __init__(self, interaction: FastPairInteraction, e: Tensor) -> None:
        self.interaction, self.e = interaction, e

    def plain(self) -> Tensor:
        """(B, M (M - 1) d)."""
        return PairInteraction.forward(self.interaction, self.e)

    def through(self, layer: FastLinear) -> Tensor:
        """(B, H)."""
        return linear_of_pairs(layer, self.e, self.interaction.senet.weights(self.e), self.interaction.bilinear.matrices())


def linear_of_pairs(layer: FastLinear, e: Tensor, scale: Tensor, maps: Tensor) -> Tensor:
    """The output of `layer` for the pairs of e followed by the pairs of scale * e, in the order (1, 2), (1, 3), ..., (M-1, M).

    Args:
        layer: of 2 P d inputs.
        e: (B, M, d) float32. scale: (B, M). maps: (P, d, d), W_ij of every pair.

    Returns:
        (B, H).
    """
    out: Tensor = _LinearOfPairs.apply(e, scale, maps, layer.weight, layer.bias, layer)
    return out


class _LinearOfPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor, scale: Tensor, maps: Tensor, weight: Tensor, bias: Tensor | None,
                layer: FastLinear) -> Tensor:  # fmt: skip
        pairs, products = _Pairs(e, scale, maps, layer.context), layer.context.products
        summed = weight.new_zeros(len(weight), len(e))
        for chunk in pairs.chunks():
            read = layer.cast_operand(pairs.made(chunk))
            summed += products.product("forward pairs", layer.cast_operand(chunk.columns_of(weight)), read.t(), batch=2)
        out = layer.epilogue(summed.t().contiguous())
        ctx.save_for_backward(e, scale, maps, weight, out if layer.relu else None)
        ctx.layer = layer
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        e, scale, maps, weight, out = ctx.saved_tensors
        layer: FastLinear = ctx.layer
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        of_bias = grad.sum(0, dtype=weight.dtype) if ctx.needs_input_grad[4] else None
        by_columns = layer.cast_operand(grad.t().contiguous())
        pairs, products = _Pairs(e, scale, maps, layer.context), layer.context.products
        of_weight = torch.empty_like(weight) if ctx.needs_input_grad[3] else None
        gradients = _Gradients(pairs) if any(ctx.needs_input_grad[:3]) else None
        for chunk in pairs.chunks():
            if of_weight is not None:
                read = layer.cast_operand(pairs.made(chunk))
                chunk.set_columns(of_weight, products.product("weight pairs", by_columns, read, batch=1))
            if gradients is not None:
                columns = layer.cast_operand(chunk.columns_of(weight))
                gradients.add(chunk, products.product("input pairs", columns.t(), by_columns.t(), batch=2).float())
        of_pairs = (None, None, None) if gradients is None else gradients.finished()
        return *of_pairs, of_weight, of_bias, None


class _Chunk:
    """Pairs first : last of P, of both kinds, and the columns of a weight (H, 2 P d) that read them."""

    def __init__(self, first: int, last: int, num_pairs: int, width: int) -> None:
        self.first, self.last = first, last
        self.plain = slice(first * width, last * width)
        self.scaled = slice((num_pairs + first) * width, (num_pairs + last) * width)

    def columns_of(self, weight: Tensor) -> Tensor:
        """(H, 2 C d)."""
        return torch.cat([weight[:, self.plain], weight[:, self.scaled]], dim=1)

    def set_columns(self, weight: Tensor, columns: Tensor) -> None:
        """The opposite of `columns_of`, in place."""
        plain, scaled = columns.chunk(2, dim=1)
        weight[:, self.plain], weight[:, self.scaled] = plain, scaled


class _Pairs:
    """The pairs of a batch, a chunk at a time."""

    def __init__(self, e: Tensor, scale: Tensor, maps: Tensor, context: FastContext) -> None:
        self.parts = context.parts
        self.num_rows, self.num_vectors, self.width = e.shape
        self.vectors = _tiled(e).numpy()
        self.scale = _tiled(scale).numpy()
        self.maps = maps.detach().contiguous().numpy()
        self.left, self.right = np.triu_indices(self.num_vectors, 1)
        self.at_a_time = min(len(self.left), max(1, context.limits.pair_width // self.width))
        self.made_numbers = e.new_empty(2 * self.at_a_time * self.width * self.num_rows)

    def chunks(self) -> Iterator[_Chunk]:
        """All pairs in their order."""
        for first in range(0, len(self.left), self.at_a_time):
            yield _Chunk(first, min(first + self.at_a_time, len(self.left)), len(self.left), self.width)

    def made(self, chunk: _Chunk) -> Tensor:
        """(2 C d, B): the pairs of e, then those of the scaled vectors; valid until the next are made."""
        count = chunk.last - chunk.first
        out = self.made_numbers[: 2 * count * self.width * self.num_rows].view(2, count, self.width, self.num_rows)
        chosen = slice(chunk.first, chunk.last)
        arrays = (self.vectors, self.scale, self.maps[chosen], self.left[chosen], self.right[chosen], out.numpy())
        self.parts(lambda first, last: kernel.make_pairs(*arrays, first, last), len(self.vectors), elements=out.numel())
        return out.view(-1, self.num_rows)


class _Gradients:
    """Of vectors, scales and maps, summed over the chunks of pairs."""

    def __init__(self, pairs: _Pairs) -> None:
        self.pairs = pairs
        self.transposed_maps = np.ascontiguousarray(pairs.maps.transpose(0, 2, 1))
        self.of_vectors, self.of_scale = np.zeros_like(pairs.vectors), np.zeros_like(pairs.scale)
        self.of_maps = np.empty_like(pairs.maps)

    def add(self, chunk: _Chunk, grad: Tensor) -> None:
        """grad: (2 C d, B), of what `_Pairs.made` gives."""
        pairs, chosen = self.pairs, slice(chunk.first, chunk.last)
        count = chunk.last - chunk.first
        # Sums of a tile are summed in the tiles' order: results do not depend on the number of threads.
        of_maps = np.empty((len(pairs.vectors), count, pairs.width, pairs.width), np.float32)
        arrays = (
            pairs.vectors, pairs.scale, pairs.maps[chosen], self.transposed_maps[chosen], pairs.left[chosen],
            pairs.right[chosen], grad.view(2, count, pairs.width, -1).numpy(), self.of_vectors, self.of_scale, of_maps,
        )  # fmt: skip
        pairs.parts(lambda first, last: kernel.add_gradients(*arrays, first, last), len(pairs.vectors), elements=grad.numel())
        self.of_maps[chosen] = of_maps.sum(axis=0)

    def finished(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B, M, d), (B, M) and (P, d, d)."""
        num_rows = self.pairs.num_rows
        of_vectors, of_scale = _by_rows(self.of_vectors, num_rows), _by_rows(self.of_scale, num_rows)
        return of_vectors, of_scale, torch.from_numpy(self.of_maps)


def _tiled(rows: Tensor) -> Tensor:
    """(B, ...) -> (tiles, ..., TILE), zero-padded behind the last row."""
    rows = rows.detach()
    whole = len(rows) // kernel.TILE
    tiles = rows.new_zeros(-(-len(rows) // kernel.TILE), *rows.shape[1:], kernel.TILE)
    tiles[:whole] = rows[: whole * kernel.TILE].unflatten(0, (whole, kernel.TILE)).movedim(1, -1)
    if whole < len(tiles):
        tiles[whole, ..., : len(rows) - whole * kernel.TILE] = rows[whole * kernel.TILE :].movedim(0, -1)
    return tiles


def _by_rows(tiles: Any, num_rows: int) -> Tensor:
    """The opposite of `_tiled`."""
    return torch.from_numpy(tiles).movedim(-1, 1).flatten(0, 1)[:num_rows]
