"""A linear layer that reads bilinear pairs, without the pairs of a whole batch ever lying in memory.

FiBiNET's pairs are p_ij = (W_ij e_i) * e_j, and once more for the scaled vectors v_i = a_i e_i: as nothing is added to W_ij e_i,
the second ones are a_i a_j p_ij. A row of 39 fields has 23,712 such numbers, a batch of 4,096 rows 388 MB of them, and their
gradients as many again. Here a few pairs are made at a time, for all rows, multiplied by their columns of the layer's weight, and
made again in the backward pass.

Everything lies with the rows of the batch last, so that loops run along contiguous numbers whatever the vectors' width: vectors
and their gradients in tiles of rows that stay in a core's cache, pairs as matrices with a column for each row of the batch.

Shapes: B rows, M vectors a row, d their width, P = M (M - 1) / 2 pairs, H outputs of the layer, C pairs made at a time.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctrlab.kernels.compile import REORDER_SUMS, compiled
from ctrlab.kernels.linear import FastLinear, product
from ctrlab.kernels.threads import in_parts

_vectorised = compiled(fastmath=REORDER_SUMS)

#: Rows of a tile: 39 vectors of 16 numbers are 320 KB of them.
_TILE = 128

#: Numbers of a row that are made at a time, of either kind of pairs: enough for a matrix product, few enough for a cache.
_WIDTH = 512


def linear_of_pairs(layer: FastLinear, e: Tensor, scale: Tensor, maps: Tensor) -> Tensor:
    """What `layer` gives for the pairs of e followed by the pairs of scale * e, in the order (1, 2), (1, 3), ..., (M-1, M).

    Args:
        layer: of 2 P d inputs.
        e: (B, M, d) float32. scale: (B, M). maps: (P, d, d), W_ij of every pair.

    Returns:
        (B, H).
    """
    out: Tensor = _LinearOfPairs.apply(e, scale, maps, layer.module.weight, layer.module.bias, layer)
    return out


class _LinearOfPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor, scale: Tensor, maps: Tensor, weight: Tensor, bias: Tensor | None,
                layer: FastLinear) -> Tensor:  # fmt: skip
        pairs = _Pairs(e, scale, maps)
        summed = weight.new_zeros(len(weight), len(e))
        for chunk in pairs.chunks():
            read = layer.lowered(pairs.made(chunk))
            summed += product("forward pairs", layer.lowered(chunk.columns_of(weight)), read.t(), layer.products, batch=2)
        out = layer.finished(summed.t().contiguous())
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
        by_columns = layer.lowered(grad.t().contiguous())
        pairs = _Pairs(e, scale, maps)
        of_weight = torch.empty_like(weight) if ctx.needs_input_grad[3] else None
        gradients = _Gradients(pairs) if any(ctx.needs_input_grad[:3]) else None
        for chunk in pairs.chunks():
            if of_weight is not None:
                read = layer.lowered(pairs.made(chunk))
                chunk.set_columns(of_weight, product("weight pairs", by_columns, read, layer.products, batch=1))
            if gradients is not None:
                columns = layer.lowered(chunk.columns_of(weight))
                gradients.add(chunk, product("input pairs", columns.t(), by_columns.t(), layer.products, batch=2).float())
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

    def __init__(self, e: Tensor, scale: Tensor, maps: Tensor) -> None:
        self.num_rows, self.num_vectors, self.width = e.shape
        self.vectors = _tiled(e).numpy()
        self.scale = _tiled(scale).numpy()
        self.maps = maps.detach().contiguous().numpy()
        self.left, self.right = np.triu_indices(self.num_vectors, 1)
        self.at_a_time = min(len(self.left), max(1, _WIDTH // self.width))
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
        in_parts(lambda first, last: _make(*arrays, first, last), len(self.vectors), elements=out.numel())
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
        in_parts(lambda first, last: _add_gradients(*arrays, first, last), len(pairs.vectors), elements=grad.numel())
        self.of_maps[chosen] = of_maps.sum(axis=0)

    def finished(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B, M, d), (B, M) and (P, d, d)."""
        num_rows = self.pairs.num_rows
        of_vectors, of_scale = _by_rows(self.of_vectors, num_rows), _by_rows(self.of_scale, num_rows)
        return of_vectors, of_scale, torch.from_numpy(self.of_maps)


def _tiled(rows: Tensor) -> Tensor:
    """(B, ...) -> (tiles, ..., _TILE), with noughts behind the last row."""
    rows = rows.detach()
    whole = len(rows) // _TILE
    tiles = rows.new_zeros(-(-len(rows) // _TILE), *rows.shape[1:], _TILE)
    tiles[:whole] = rows[: whole * _TILE].unflatten(0, (whole, _TILE)).movedim(1, -1)
    if whole < len(tiles):
        tiles[whole, ..., : len(rows) - whole * _TILE] = rows[whole * _TILE :].movedim(0, -1)
    return tiles


def _by_rows(tiles: Any, num_rows: int) -> Tensor:
    """The opposite of `_tiled`."""
    return torch.from_numpy(tiles).movedim(-1, 1).flatten(0, 1)[:num_rows]


@_vectorised
def _make(e: Any, scale: Any, maps: Any, left: Any, right: Any, out: Any, first: int, last: int) -> None:
    """Pairs out (2, C, d, B) of the tiles first : last."""
    width, num_rows = e.shape[2], out.shape[3]
    mapped = np.empty((width, _TILE), np.float32)
    both = np.empty(_TILE, np.float32)
    for tile in range(first, last):
        start = tile * _TILE
        size = min(_TILE, num_rows - start)
        for p in range(len(maps)):
            i, j = left[p], right[p]
            _map(maps[p], e[tile, i], size, mapped)
            for t in range(size):
                both[t] = scale[tile, i, t] * scale[tile, j, t]
            for k in range(width):
                plain, scaled = out[0, p, k, start : start + size], out[1, p, k, start : start + size]
                for t in range(size):
                    value = mapped[k, t] * e[tile, j, k, t]
                    plain[t] = value
                    scaled[t] = value * both[t]


@_vectorised
def _add_gradients(e: Any, scale: Any, maps: Any, transposed_maps: Any, left: Any, right: Any, grad: Any, of_e: Any,
                   of_scale: Any, of_maps: Any, first: int, last: int) -> None:  # fmt: skip
    """Gradients of the tiles first : last from those of their pairs, grad (2, C, d, B); of_maps (tiles, C, d, d) is set."""
    width, num_rows = e.shape[2], grad.shape[3]
    mapped, back = np.empty((width, _TILE), np.float32), np.empty((width, _TILE), np.float32)
    both, inner = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    for tile in range(first, last):
        start = tile * _TILE
        size = min(_TILE, num_rows - start)
        for p in range(len(maps)):
            i, j = left[p], right[p]
            _map(maps[p], e[tile, i], size, mapped)
            for t in range(size):
                both[t] = scale[tile, i, t] * scale[tile, j, t]
                inner[t] = 0
            for k in range(width):
                plain, scaled = grad[0, p, k, start : start + size], grad[1, p, k, start : start + size]
                other, of_other = e[tile, j, k], of_e[tile, j, k]
                for t in range(size):
                    value = mapped[k, t]
                    of_pair = plain[t] + both[t] * scaled[t]
                    inner[t] += value * other[t] * scaled[t]
                    of_other[t] += of_pair * value
                    mapped[k, t] = of_pair * other[t]  # from here on the gradient of what was mapped
            for t in range(size):
                of_scale[tile, i, t] += scale[tile, j, t] * inner[t]
                of_scale[tile, j, t] += scale[tile, i, t] * inner[t]
            _map(transposed_maps[p], mapped, size, back)
            for k in range(width):
                for t in range(size):
                    of_e[tile, i, k, t] += back[k, t]
            _multiply(mapped, e[tile, i], size, of_maps[tile, p])


@_vectorised
def _map(matrix: Any, vectors: Any, size: int, out: Any) -> None:
    """out (d, _TILE) <- matrix (d, d) vectors (d, _TILE), the first `size` columns."""
    width = matrix.shape[0]
    for k in range(width):
        row = out[k]
        for t in range(size):
            row[t] = 0
        j = 0
        while j + 4 <= width:  # four at a time: `row` is loaded and stored once for all
            a, b, c, d = matrix[k, j], matrix[k, j + 1], matrix[k, j + 2], matrix[k, j + 3]
            for t in range(size):
                row[t] += a * vectors[j, t] + b * vectors[j + 1, t] + c * vectors[j + 2, t] + d * vectors[j + 3, t]
            j += 4
        while j < width:
            a = matrix[k, j]
            for t in range(size):
                row[t] += a * vectors[j, t]
            j += 1


@_vectorised
def _multiply(x: Any, y: Any, size: int, out: Any) -> None:
    """out (d, d) <- x y^T of the first `size` columns of x and y (d, _TILE)."""
    width = x.shape[0]
    for k in range(width):
        row = x[k]
        j = 0
        while j + 4 <= width:  # four at a time: `row` is loaded once for all
            a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for t in range(size):
                a += row[t] * y[j, t]
                b += row[t] * y[j + 1, t]
                c += row[t] * y[j + 2, t]
                d += row[t] * y[j + 3, t]
            out[k, j], out[k, j + 1], out[k, j + 2], out[k, j + 3] = a, b, c, d
            j += 4
        while j < width:
            a = np.float32(0)
            for t in range(size):
                a += row[t] * y[j, t]
            out[k, j] = a
            j += 1
