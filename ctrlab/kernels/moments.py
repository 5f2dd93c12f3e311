"""Loops over the rows of narrow matrices, such as embedding tables: their moments, and their projection on a few directions.

For widths of 4 to 64 a matrix product library spends its time on packing: it took 5 times as long as these loops. A tile of rows
is transposed and converted to float64 once, in the cache; all further loops run along contiguous numbers. The GIL is released, so
several blocks can run in parallel.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.kernels.compile import compiled

#: Rows of a tile: 64 columns of them in float64 are 128 KB, well inside a core's own cache.
_TILE = 256

#: Where the next column of a tile begins: a power of two would put all columns into the same few lines of the cache.
_STRIDE = _TILE + 8

#: Sums may be taken in any order (hence in vector registers); NaN and infinity keep their meaning.
_ANY_ORDER = {"reassoc", "contract"}


@compiled(fastmath=_ANY_ORDER)
def add_moments(
    rows: NDArray[Any], weights: NDArray[np.float64], n: float, mean: NDArray[np.float64], scatter: NDArray[np.float64]
) -> float:
    """Add rows (m, d), each counted weights (m,) times, to a mean (d,) and a centred scatter (d, d) of weight n, in place.

    Tiles are centred on their own mean and merge by Chan, Golub and LeVeque's formula, in float64.

    Args:
        rows: float32 or float64, contiguous.
        weights: float64 and not negative; empty where every row counts once.

    Returns:
        The new n.
    """
    count, width = rows.shape
    tile = np.empty((width, _STRIDE))
    weighed = np.empty((width, _STRIDE)) if len(weights) else tile
    tile_mean = np.empty(width)
    for start in range(0, count, _TILE):
        size = min(_TILE, count - start)
        tile_n = 0.0
        if len(weights):
            for t in range(size):
                tile_n += weights[start + t]
        else:
            tile_n = float(size)
        if tile_n == 0.0:
            continue
        for t in range(size):
            for j in range(width):
                tile[j, t] = rows[start + t, j]
        for j in range(width):
            total = 0.0
            if len(weights):
                for t in range(size):
                    total += tile[j, t] * weights[start + t]
            else:
                for t in range(size):
                    total += tile[j, t]
            centre = total / tile_n
            tile_mean[j] = centre
            for t in range(size):
                tile[j, t] -= centre
            if len(weights):
                for t in range(size):
                    weighed[j, t] = tile[j, t] * weights[start + t]
        merged = n + tile_n
        for i in range(width):
            pull = (tile_mean[i] - mean[i]) * (n * tile_n / merged)
            left = weighed[i]
            j = i
            while j + 4 <= width:  # four sums at a time: `left` is loaded once for all
                a, b, c, d = 0.0, 0.0, 0.0, 0.0
                for t in range(size):
                    x = left[t]
                    a += x * tile[j, t]
                    b += x * tile[j + 1, t]
                    c += x * tile[j + 2, t]
                    d += x * tile[j + 3, t]
                scatter[i, j] += a + pull * (tile_mean[j] - mean[j])
                scatter[i, j + 1] += b + pull * (tile_mean[j + 1] - mean[j + 1])
                scatter[i, j + 2] += c + pull * (tile_mean[j + 2] - mean[j + 2])
                scatter[i, j + 3] += d + pull * (tile_mean[j + 3] - mean[j + 3])
                j += 4
            while j < width:
                a = 0.0
                for t in range(size):
                    a += left[t] * tile[j, t]
                scatter[i, j] += a + pull * (tile_mean[j] - mean[j])
                j += 1
        for i in range(width):
            mean[i] += (tile_mean[i] - mean[i]) * (tile_n / merged)
        n = merged
    for i in range(width):
        for j in range(i):
            scatter[i, j] = scatter[j, i]
    return n


@compiled(fastmath=_ANY_ORDER)
def project(rows: NDArray[Any], mean: NDArray[np.float64], basis: NDArray[np.float64], out: NDArray[Any]) -> None:
    """out (m, k) <- (rows (m, d) - mean (d,)) basis (d, k), summed in float64 and rounded once, to the type of `out`."""
    count, width = rows.shape
    rank = basis.shape[1]
    tile = np.empty((width, _STRIDE))
    sums = np.empty((rank, _STRIDE))
    for start in range(0, count, _TILE):
        size = min(_TILE, count - start)
        for t in range(size):
            for j in range(width):
                tile[j, t] = rows[start + t, j] - mean[j]
        for r in range(rank):
            total = sums[r]
            for t in range(size):
                total[t] = 0.0
            j = 0
            while j + 4 <= width:
                a, b, c, d = basis[j, r], basis[j + 1, r], basis[j + 2, r], basis[j + 3, r]
                for t in range(size):
                    total[t] += a * tile[j, t] + b * tile[j + 1, t] + c * tile[j + 2, t] + d * tile[j + 3, t]
                j += 4
            while j < width:
                a = basis[j, r]
                for t in range(size):
                    total[t] += a * tile[j, t]
                j += 1
        for t in range(size):
            for r in range(rank):
                out[start + t, r] = sums[r, t]
