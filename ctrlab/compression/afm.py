"""Atomic feature mimicking: low rank where the *features* are low-rank (arXiv 2405.18146)."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.plans.shared_basis import principal_basis, second_moment


class LinearFactors(NamedTuple):
    """y = W2 (W1 x + b1) + b2, all float64: W1 (k, in), b1 (k,), W2 (out, k), b2 (out,)."""

    reduce_weight: Tensor
    reduce_bias: Tensor
    restore_weight: Tensor
    restore_bias: Tensor


class TableFactors(NamedTuple):
    """z = basis^T (row - mean) is stored and e = basis z + mean restored; float64 basis (d, k), orthonormal, and mean (d,)."""

    basis: Tensor
    mean: Tensor


class Compressor(Protocol):
    """A compression method: how the factors of one layer are found.

    needs_spectra: whether the layer's output spectrum, eigenvectors included, must be given.
    """

    needs_spectra: bool

    def linear_factors(self, weight: Tensor, bias: Tensor, spectrum: LayerSpectrum | None, rank: int) -> LinearFactors:
        """Factors of y = W x + b, from float64 W (out, in) and b (out,)."""
        ...

    def table_factors(self, table: Tensor, spectrum: LayerSpectrum | None, rank: int) -> TableFactors:
        """Factors of a table (num_ids, d) of any float type."""
        ...

    def shared_basis(self, tables: Sequence[Tensor], spectra: Sequence[LayerSpectrum | None], rank: int) -> Tensor:
        """One orthonormal float64 basis (d, k) for all `tables` (num_ids, d)."""
        ...


class AFM:
    """Projects outputs on their first k principal directions U_k about their mean mu.

    W1 = U_k^T W, b1 = U_k^T (b - mu), W2 = U_k, b2 = mu: the best affine map of rank k for the calibration rows in squared error,
    which is the sum of the discarded eigenvalues.
    """

    needs_spectra = True

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
