"""Loss-weighted AFM: low rank where the loss depends on the features (METHOD.md, section 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ctrlab.compression.afm import AFM
from ctrlab.compression.factors import LinearFactors, TableFactors
from ctrlab.decomposition.loss_weights import WeightedDirections, weighted_directions
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError


class LossWeightedAFM:
    """y_hat = mu + S^-1 V_k V_k^T S (y - mu), with S^2 the smoothed second moments of the log loss's gradients by y.

    Of all affine maps of rank k the one of least E|S (y - y_hat)|^2 on the calibration rows; AFM where S is a multiple of I.
    """

    def linear_factors(self, weight: Tensor, bias: Tensor, spectrum: LayerSpectrum | None, rank: int) -> LinearFactors:
        """W1 = V_k^T S W, b1 = V_k^T S (b - mu), W2 = S^-1 V_k, b2 = mu."""
        encode, decode, mean = _directions(spectrum, rank, weight.device)
        return LinearFactors(encode.T @ weight, encode.T @ (bias - mean), decode, mean)

    def table_factors(self, table: Tensor, spectrum: LayerSpectrum | None, rank: int) -> TableFactors:
        """The same map with an orthonormal basis, S^-1 V_k = Q R: z = R V_k^T S (row - mu), e = Q z + mu."""
        encode, decode, mean = _directions(spectrum, rank, table.device)
        basis, triangle = torch.linalg.qr(decode)
        return TableFactors(basis, mean, encode @ triangle.T)

    def shared_basis(self, tables: Sequence[Tensor], spectra: Sequence[LayerSpectrum | None], rank: int) -> Tensor:
        """AFM's: with a weight of its own for every table, the best basis for all has no closed form."""
        return AFM().shared_basis(tables, spectra, rank)


def _directions(spectrum: LayerSpectrum | None, rank: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """encode (d, k), decode (d, k) and mu (d,), float64."""
    if spectrum is None or spectrum.eigenvectors is None or spectrum.gradients is None:
        raise CompressionError(
            "loss-weighted AFM needs the layer's spectrum with eigenvectors and gradients of the loss; "
            "collect it with loss_gradients=True"
        )
    found: WeightedDirections = weighted_directions(spectrum.covariance, spectrum.gradients)
    encode, decode = (torch.tensor(part[:, :rank].copy(), device=device) for part in (found.encode, found.decode))
    return encode, decode, torch.tensor(spectrum.mean, device=device)
