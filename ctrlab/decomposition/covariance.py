"""Streaming mean and covariance of features, exact enough to trust the smallest eigenvalue.

Each block is centred on its own mean and blocks merge by Chan, Golub and LeVeque's formula (1979). A sum of squares minus a
squared mean of the features themselves is never formed. Narrow features, such as tables, are summed in float64 throughout. For
wide ones float64 would take longer than the model: their centred rows are multiplied in float32, a thousand at a time, and the
products are summed in float64. The rounding of one such piece averages out over many: from 16,000 rows on an eigenvalue is right
to 3e-8 of the total variance, also where one direction holds 99.9 % of it (a test holds that).
"""

from typing import Self

import numpy as np
import torch
from torch import Tensor

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import SpectrumError
from ctrlab.kernels.moments import add_moments

#: Up to this width compiled loops in float64 beat matrix products.
NARROW = 64
#: Rows brought to one mean at a time: bounds a float64 copy at 26 MB for 400 features.
_BLOCK_ROWS = 8192
#: Rows of a float32 product: few enough that the centred copy stays in the cache and that rounding does not add up.
_PIECE_ROWS = 1024
#: From this many rows in a block on, there are pieces enough to average their rounding; fewer cost little in float64.
_FLOAT32_ROWS = 4096


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
        if self.width <= NARROW and rows.device.type == "cpu":
            self._add_narrow(rows, flat)
            return self
        for start in range(0, len(rows), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            self._add(*_block_moments(rows[part], flat[part] if flat is not None else None))
        return self

    def _add_narrow(self, rows: Tensor, weights: Tensor | None) -> None:
        wanted = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
        counts = np.empty(0) if weights is None else np.ascontiguousarray(weights.double().numpy())
        self.n = add_moments(wanted.contiguous().numpy(), counts, self.n, self.mean.numpy(), self.scatter.numpy())

    def merge(self, other: "Moments") -> Self:
        """Add all that `other` has seen."""
        self._add(other.n, other.mean.to(self.mean.device), other.scatter.to(self.scatter.device))
        return self

    def _add(self, n: float, mean: Tensor, scatter: Tensor) -> None:
        if n == 0:
            return
        total = self.n + n
        delta = mean - self.mean
        self.scatter += scatter
        self.scatter.addr_(delta, delta, alpha=self.n * n / total)
        self.mean += delta * (n / total)
        self.n = total


def _block_moments(rows: Tensor, weights: Tensor | None) -> tuple[float, Tensor, Tensor]:
    if rows.dtype != torch.float64 and len(rows) >= _FLOAT32_ROWS:
        return _float32_moments(rows.float(), weights)
    rows = rows.double()
    counts = rows.new_ones(len(rows)) if weights is None else weights.double()
    n = float(counts.sum())
    mean = counts @ rows / n if n else rows[0]
    centred = rows - mean
    return n, mean, (centred if weights is None else centred * counts.unsqueeze(1)).T @ centred


def _float32_moments(rows: Tensor, weights: Tensor | None) -> tuple[float, Tensor, Tensor]:
    """Products and sums of a thousand rows in float32, and their sums in float64."""
    n = float(len(rows)) if weights is None else float(weights.sum(dtype=torch.float64))
    if not n:
        return 0.0, rows[0].double(), rows.new_zeros(0)
    roots = None if weights is None else weights.double().sqrt().float().unsqueeze(1)
    # Near the mean is near enough: what is left is taken off at the end, in float64.
    shift = rows.mean(dim=0) if weights is None else (weights.double() @ rows.double() / n).float()
    scatter = torch.zeros(len(shift), len(shift), dtype=torch.float64, device=rows.device)
    left_over = torch.zeros(len(shift), dtype=torch.float64, device=rows.device)
    for start in range(0, len(rows), _PIECE_ROWS):
        part = slice(start, start + _PIECE_ROWS)
        centred = rows[part] - shift
        if roots is None:
            left_over += centred.sum(dim=0)
        else:
            centred *= roots[part]
            left_over += roots[part].squeeze(1) @ centred
        scatter += symmetric_product(centred)
    left_over /= n
    return n, shift.double() + left_over, scatter.sub_(n * torch.outer(left_over, left_over))


def symmetric_product(rows: Tensor) -> Tensor:
    """rows^T rows (d, d), on the CPU at half the work: NumPy's BLAS has a routine for one triangle, torch offers none."""
    if rows.device.type != "cpu":
        return rows.T @ rows
    array = rows.numpy()
    return torch.from_numpy(array.T @ array)


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
