"""Streaming mean and covariance of features, exact enough to trust the smallest eigenvalue.

Each block is centred on its own mean and blocks merge by Chan, Golub and LeVeque's formula (1979). All of it is float64: the
error of a float32 product goes with the *largest* eigenvalue, and in CTR models, where one direction can hold 99 % of the
variance, what a truncation discards may be a thousand times smaller. The float64 product takes 2.5 times as long. A sum of
squares minus a squared mean is never formed.
"""

from typing import Self

import numpy as np
import torch
from torch import Tensor

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import SpectrumError

#: Rows centred at a time: bounds the float64 copy of a block at 128 MB for 256 features.
_CHUNK_ROWS = 65_536


class Moments:
    """Count, mean and centred scatter of a stream of feature rows.

    n: number of rows, or the sum of their weights.
    mean: float64 (d,).
    scatter: float64 (d, d), sum over rows of (y - mean)(y - mean)^T.
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        self.n = 0.0
        self.mean = torch.zeros(width, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(width, width, dtype=torch.float64, device=device)

    @property
    def width(self) -> int:
        return len(self.mean)

    @property
    def covariance(self) -> Tensor:
        """float64 (d, d), divisor n: the mean squared deviation, so that discarded eigenvalues are a mean squared error."""
        if not self.n > 0:
            raise SpectrumError("no rows were seen, hence there is no covariance; give at least one calibration row")
        return self.scatter / self.n

    @torch.no_grad()
    def update(self, block: Tensor, weights: Tensor | None = None) -> Self:
        """Add rows (..., d) of any float type, each counted `weights` (...,) times where given."""
        rows = block.detach().reshape(-1, self.width)
        flat = weights.reshape(-1) if weights is not None else None
        for start in range(0, len(rows), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            self._add(*_chunk_moments(rows[part].double(), flat[part].double() if flat is not None else None))
        return self

    def merge(self, other: "Moments") -> Self:
        """Add all that `other` has seen."""
        self._add(other.n, other.mean.to(self.mean.device), other.scatter.to(self.scatter.device))
        return self

    def _add(self, n: float, mean: Tensor, scatter: Tensor) -> None:
        if n == 0:
            return
        total = self.n + n
        delta = mean - self.mean
        self.scatter += scatter + torch.outer(delta, delta) * (self.n * n / total)
        self.mean += delta * (n / total)
        self.n = total


def _chunk_moments(rows: Tensor, weights: Tensor | None) -> tuple[float, Tensor, Tensor]:
    if weights is None:
        mean = rows.mean(dim=0)
        centred = rows - mean
        return float(len(rows)), mean, centred.T @ centred
    n = float(weights.sum())
    if n == 0:
        return 0.0, rows[0], rows.T @ rows
    mean = weights @ rows / n
    centred = rows - mean
    return n, mean, (centred * weights.unsqueeze(1)).T @ centred


def decompose(layer_name: str, kind: str, moments: Moments, weight_singular_values: Tensor) -> LayerSpectrum:
    """Eigendecomposition of the covariance in `moments`: descending, negatives clipped to 0, signs fixed."""
    covariance = moments.covariance.cpu()
    if not (torch.isfinite(covariance).all() and torch.isfinite(moments.mean).all()):
        raise SpectrumError(f"layer {layer_name} gave values that are not finite; check the model's weights, then retrain it")
    eigenvalues, eigenvectors = (part.numpy() for part in torch.linalg.eigh(covariance))
    eigenvectors = _fix_signs(eigenvectors[:, ::-1])
    return LayerSpectrum(
        layer_name=layer_name,
        kind="linear" if kind == "linear" else "embedding",
        eigenvalues=np.maximum(eigenvalues[::-1], 0.0),
        eigenvectors=eigenvectors,
        mean=moments.mean.cpu().numpy().copy(),
        num_samples=round(moments.n),
        weight_singular_values=weight_singular_values.cpu().numpy(),
    )


def _fix_signs(vectors: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Flip columns so that each one's entry of largest size is positive, as scikit-learn's svd_flip does."""
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
    return np.ascontiguousarray(vectors * signs)
