"""The factors of a layer and of a table, and the protocol of a method that computes them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from ctrlab.decomposition.spectrum import LayerSpectrum


class LinearFactors(NamedTuple):
    """y = W2 (W1 x + b1) + b2, all float64: W1 (k, in), b1 (k,), W2 (out, k), b2 (out,)."""

    reduce_weight: Tensor
    reduce_bias: Tensor
    restore_weight: Tensor
    restore_bias: Tensor


class TableFactors(NamedTuple):
    """z = encode^T (row - mean) is stored and e = basis z + mean restored, all float64.

    basis: (d, k), orthonormal. mean: (d,). encode: (d, k); None for the basis itself, an orthogonal projection.
    """

    basis: Tensor
    mean: Tensor
    encode: Tensor | None = None

    @property
    def encoder(self) -> Tensor:
        """(d, k)."""
        return self.basis if self.encode is None else self.encode


class Compressor(Protocol):
    """A compression method's code: how the factors of one layer are found. `ctrlab.plans.methods` registers methods.

    Spectra are None where a method that does not need them is given none; otherwise they have their eigenvectors.
    """

    def linear_factors(self, weight: Tensor, bias: Tensor, spectrum: LayerSpectrum | None, rank: int) -> LinearFactors:
        """Factors of y = W x + b, from float64 W (out, in) and b (out,)."""
        ...

    def table_factors(self, table: Tensor, spectrum: LayerSpectrum | None, rank: int) -> TableFactors:
        """Factors of a table (num_ids, d) of any float type; called for methods that keep latents."""
        ...

    def shared_basis(self, tables: Sequence[Tensor], spectra: Sequence[LayerSpectrum | None], rank: int) -> Tensor:
        """One orthonormal float64 basis (d, k) for all `tables` (num_ids, d)."""
        ...
