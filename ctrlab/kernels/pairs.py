"""Loops of sum_{i<j} e_i * e_j, elementwise (FM, lemma 3.1; NFM, eq. 4), in one pass over the vectors."""

from typing import Any

import numpy as np

from ctrlab.kernels.compile import REORDER_SUMS, compiled

_vectorised = compiled(fastmath=REORDER_SUMS)


@_vectorised
def forward(e: Any, total: Any, out: Any, first: int, last: int) -> None:
    """total = sum_i e_i and out = sum_{i<j} e_i * e_j, of the rows first : last."""
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
def backward(grad: Any, e: Any, total: Any, out: Any, first: int, last: int) -> None:
    """out = gradient with respect to e (B, M, d): for e_i, grad times the sum of the others."""
    for b in range(first, last):
        for f in range(e.shape[1]):
            for j in range(e.shape[2]):
                out[b, f, j] = grad[b, j] * (total[b, j] - e[b, f, j])
