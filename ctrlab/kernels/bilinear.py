"""Loops over bilinear pairs p_ij = (W_ij e_i) * e_j, and the same of scaled vectors a_i e_i, which are a_i a_j p_ij.

Rows of the batch lie last, so that loops run along contiguous numbers whatever the vectors' width: vectors and their gradients in
tiles of rows that stay in a core's cache, (tiles, M, d, TILE), pairs as (2, C, d, B).

Shapes: B rows, M vectors a row, d their width, C pairs at a time.
"""

from typing import Any

import numpy as np

from ctrlab.kernels.compile import REORDER_SUMS, compiled

_vectorised = compiled(fastmath=REORDER_SUMS)

#: Rows of a tile: 39 vectors of 16 numbers are 320 KB of them.
TILE = 128


@_vectorised
def make_pairs(e: Any, scale: Any, maps: Any, left: Any, right: Any, out: Any, first: int, last: int) -> None:
    """Pairs out (2, C, d, B) of the tiles first : last."""
    width, num_rows = e.shape[2], out.shape[3]
    mapped = np.empty((width, TILE), np.float32)
    both = np.empty(TILE, np.float32)
    for tile in range(first, last):
        start = tile * TILE
        size = min(TILE, num_rows - start)
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
def add_gradients(e: Any, scale: Any, maps: Any, transposed_maps: Any, left: Any, right: Any, grad: Any, of_e: Any,
                   of_scale: Any, of_maps: Any, first: int, last: int) -> None:  # fmt: skip
    """Gradients of the tiles first : last from those of their pairs, grad (2, C, d, B); of_maps (tiles, C, d, d) is set."""
    width, num_rows = e.shape[2], grad.shape[3]
    mapped, back = np.empty((width, TILE), np.float32), np.empty((width, TILE), np.float32)
    both, inner = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    for tile in range(first, last):
        start = tile * TILE
        size = min(TILE, num_rows - start)
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
    """out (d, TILE) <- matrix (d, d) vectors (d, TILE), the first `size` columns."""
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
    """out (d, d) <- x y^T of the first `size` columns of x and y (d, TILE)."""
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
