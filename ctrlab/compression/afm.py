"""Atomic feature mimicking: low rank where the *features* are low-rank (arXiv 2405.18146)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ctrlab.compression.factors import LinearFactors, TableFactors
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.plans.shared_basis import principal_basis, second_moment


class AFM:
    """Projects outputs on their first k principal directions U_k about their mean mu.

    W1 = U_k^T W, b1 = U_k^T (b - mu), W2 = U_k, b2 = mu: the best affine map of rank k for the calibration rows in squared error,
    which is the sum of the discarded eigenvalues.
    """

    def linear_factors(self, weight: Tensor, bias: Tensor, spectrum: LayerSpectrum | None, rank: int) -> LinearFactors:
        basis, mean = principal(spectrum, rank, weight.device)
        return LinearFactors(basis.T @ weight, basis.T @ (bias - mean), basis, mean)

    def table_factors(self, table: Tensor, spectrum: LayerSpectrum | None, rank: int) -> TableFactors:
        return TableFactors(*principal(spectrum, rank, table.device))

    def shared_basis(self, tables: Sequence[Tensor], spectra: Sequence[LayerSpectrum | None], rank: int) -> Tensor:
        """Principal directions of all tables' rows together, weighted by how often each id occurs, not centred."""
        moments = [second_moment(spectrum) for spectrum in spectra if spectrum is not None]
        return torch.tensor(principal_basis(moments, rank).copy(), device=tables[0].device)


def principal(spectrum: LayerSpectrum | None, rank: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """U_k (d, k) and mu (d,) of a layer's outputs, float64."""
    if spectrum is None or spectrum.eigenvectors is None:
        raise CompressionError("the method needs the layer's spectrum with eigenvectors; load the spectra with eigenvectors=True")
    return torch.tensor(spectrum.eigenvectors[:, :rank], device=device), torch.tensor(spectrum.mean, device=device)
