"""Truncated SVD of the weights with a corrected bias, which restores each layer's mean output on the calibration rows."""

from collections.abc import Sequence

from torch import Tensor

from ctrlab.compression.afm import principal
from ctrlab.compression.factors import LinearFactors, TableFactors
from ctrlab.compression.svd import WeightSVD
from ctrlab.decomposition.spectrum import LayerSpectrum


class CorrectedSVD(WeightSVD):
    """WeightSVD, and b' = b + (W - W_k) E[x], so that the mean output on the calibration rows is unchanged.

    E[x] itself is not needed: the mean output mu = W E[x] + b is in the layer's spectrum, and W_k = P_k P_k^T W, hence
    b' = mu - P_k P_k^T (mu - b). (Bias correction as Nagel et al., 2019, use it for quantisation.)
    """

    def linear_factors(self, weight: Tensor, bias: Tensor, spectrum: LayerSpectrum | None, rank: int) -> LinearFactors:
        """W1, b1, W2 as WeightSVD, b2 = b'."""
        plain = super().linear_factors(weight, bias, spectrum, rank)
        _, mean = principal(spectrum, rank, weight.device)
        kept = plain.restore_weight @ (plain.restore_weight.T @ (mean - bias))
        return plain._replace(restore_bias=mean - kept)

    def table_factors(self, table: Tensor, spectrum: LayerSpectrum | None, rank: int) -> TableFactors:
        """Directions of the table as it is, about the mean of the vectors that training rows look up."""
        _, mean = principal(spectrum, rank, table.device)
        return TableFactors(super().table_factors(table, spectrum, rank).basis, mean)

    def shared_basis(self, tables: Sequence[Tensor], spectra: Sequence[LayerSpectrum | None], rank: int) -> Tensor:
        """A shared basis has no means, so there is nothing to correct."""
        basis: Tensor = super().shared_basis(tables, spectra, rank)
        return basis
