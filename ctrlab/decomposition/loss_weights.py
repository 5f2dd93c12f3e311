"""Directions of a layer's output that the log loss depends on; loads without torch.

With C the covariance of an output y (d,), and G = E[g g^T] of the gradient g = dL/dy of a row's log loss, a small error e of y
raises the loss by E[e^T G e] / 2 to second order: the labels are the model's own, so that the first-order term vanishes and G is
the Fisher information. With S = (G + eps mean(diag G) I)^1/2 and S C S = V L V^T,

    y_hat = mu + S^-1 V_k V_k^T S (y - mu)

is the affine map of rank k of least E|S (y - y_hat)|^2, which is the sum of the discarded L. G = I is AFM.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

#: eps: what directions without any gradient weigh, as a share of the mean direction. The gradients vanish where ReLUs are off,
#: which a truncation may turn on.
SMOOTHING = 0.1


class WeightRoot(NamedTuple):
    """S (d, d) and its inverse, for G divided by `scale`, its mean diagonal."""

    root: FloatArray
    inverse: FloatArray
    scale: float


class WeightedDirections(NamedTuple):
    """z = encode^T (y - mu) and y_hat = mu + decode z; the first k columns of both are those of rank k.

    encode, decode: (d, d); encode^T decode = I. losses: (d,) eigenvalues of S C S, descending.
    """

    encode: FloatArray
    decode: FloatArray
    losses: FloatArray


def weight_root(gradients: FloatArray, smoothing: float = SMOOTHING) -> WeightRoot:
    """S of G (d, d); of G = 0, an output that no loss depends on, I with scale 0.

    >>> weight_root(4.0 * np.eye(2), smoothing=0.0).root * 2.0
    array([[2., 0.],
           [0., 2.]])
    """
    width, scale = len(gradients), float(np.trace(gradients)) / len(gradients)
    if not scale > 0:
        return WeightRoot(np.eye(width), np.eye(width), 0.0)
    values, vectors = np.linalg.eigh(gradients / scale + smoothing * np.eye(width))
    roots = np.sqrt(np.maximum(values, 1e-12))
    return WeightRoot(vectors * roots @ vectors.T, vectors / roots @ vectors.T, scale)


def weighted_directions(covariance: FloatArray, gradients: FloatArray, smoothing: float = SMOOTHING) -> WeightedDirections:
    """The directions above, of C and G (d, d)."""
    weight = weight_root(gradients, smoothing)
    values, vectors = np.linalg.eigh(weight.root @ covariance @ weight.root)
    vectors = vectors[:, ::-1]
    losses = weight.scale * np.maximum(values[::-1], 0.0)
    return WeightedDirections(weight.root @ vectors, weight.inverse @ vectors, losses)
