"""SVD of the weights whitened by their inputs: the best linear map of low rank for the data, without AFM's mean."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ctrlab.compression.afm import principal
from ctrlab.compression.factors import LinearFactors, TableFactors
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.plans.shared_basis import principal_basis, second_moment


class WhitenedSVD:
    """min E|W x - W' x|^2 over W' of rank k, the bias kept (SVD-LLM, Wang et al., 2024; DRONE, Chen et al., 2021).

    With S S^T = E[x x^T] the optimum is the truncated SVD of W S, multiplied by S^-1. Its left vectors are the eigenvectors of
    W S S^T W^T = E[(y - b)(y - b)^T], which the spectrum of the outputs holds, so that W' = U_k U_k^T W and no input is needed.
    AFM does the same about the mean of y, and is never worse on the calibration rows.
    """

    def linear_factors(self, weight: Tensor, bias: Tensor, spectrum: LayerSpectrum | None, rank: int) -> LinearFactors:
        """W1 = U_k^T W, b1 = 0, W2 = U_k, b2 = b."""
        vectors, mean = principal(spectrum, weight.shape[0], weight.device)
        assert spectrum is not None  # checked by `principal`
        variances = torch.tensor(spectrum.eigenvalues, device=weight.device)
        moment = vectors * variances @ vectors.T + torch.outer(mean - bias, mean - bias)
        basis = torch.linalg.eigh(moment).eigenvectors.flip(1)[:, :rank].contiguous()
        return LinearFactors(basis.T @ weight, weight.new_zeros(rank), basis, bias)

    def table_factors(self, table: Tensor, spectrum: LayerSpectrum | None, rank: int) -> TableFactors:
        """Directions of the looked-up vectors about zero."""
        basis = self.shared_basis([table], [spectrum], rank)
        return TableFactors(basis, basis.new_zeros(len(basis)))

    def shared_basis(self, tables: Sequence[Tensor], spectra: Sequence[LayerSpectrum | None], rank: int) -> Tensor:
        """As AFM's: principal directions of all looked-up vectors, weighted by how often each id occurs, not centred."""
        known = [spectrum for spectrum in spectra if spectrum is not None]
        if len(known) < len(spectra):
            raise CompressionError("whitening needs the spectrum of every table; collect the spectra of this model first")
        return torch.tensor(principal_basis(map(second_moment, known), rank).copy(), device=tables[0].device)
