"""Loops of DCN's cross network: all its x_l lie on a line, x_l = alpha_l x_0 + B_l, so a row needs scalars alone."""

from typing import Any

import numpy as np

from ctrlab.kernels.compile import REORDER_SUMS, compiled

_vectorised = compiled(fastmath=REORDER_SUMS)

#: Rows whose gradients of the weights are summed by one thread: the sum does not depend on the number of threads.
BLOCK = 256


@_vectorised
def forward(x0: Any, weights: Any, offsets: Any, shift: Any, out: Any, scalars: Any, first: int, last: int) -> None:
    """out = alpha_L x_0 + shift, scalars (B, L) = x_0^T w_l, of the rows first : last; see `engines/fast/cross.py`."""
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
def backward(grad: Any, x0: Any, weights: Any, offsets: Any, scalars: Any, of_x0: Any, of_weights: Any, of_offsets: Any,
              of_shift: Any, first: int, last: int) -> None:  # fmt: skip
    """Gradients of `forward`; those of the weights by block of rows, for the blocks first : last."""
    layers, width = weights.shape
    alphas = np.empty(layers + 1, np.float32)
    for block in range(first, last):
        for b in range(block * BLOCK, min(x0.shape[0], (block + 1) * BLOCK)):
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
