"""Truncated SVD of the weights: the classical low-rank baseline, blind to the data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ctrlab.compression.factors import LinearFactors, TableFactors
from ctrlab.decomposition.spectrum import LayerSpectrum

_CHUNK_ROWS = 65_536


class WeightSVD:
    """W = P diag(s) Q^T cut to its k largest singular values; tables likewise, every id counting alike."""

    def linear_factors(self, weight: Tensor, bias: Tensor, spectrum: LayerSpectrum | None, rank: int) -> LinearFactors:
        """W1 = diag(s_k) Q_k^T, b1 = 0, W2 = P_k, b2 = b. Directions beyond the rank of W are zero."""
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        rank_of_weight = min(rank, len(values))
        reduce, restore = weight.new_zeros(rank, weight.shape[1]), weight.new_zeros(weight.shape[0], rank)
        reduce[:rank_of_weight] = values[:rank_of_weight, None] * right[:rank_of_weight]
        restore[:, :rank_of_weight] = left[:, :rank_of_weight]
        return LinearFactors(reduce, weight.new_zeros(rank), restore, bias)

    def table_factors(self, table: Tensor, spectrum: LayerSpectrum | None, rank: int) -> TableFactors:
        """The first k right singular vectors, through the (d, d) Gram matrix: one pass over the rows."""
        return TableFactors(_right_vectors([table], rank), table.new_zeros(table.shape[1], dtype=torch.float64))

    def shared_basis(self, tables: Sequence[Tensor], spectra: Sequence[LayerSpectrum | None], rank: int) -> Tensor:
        """The first k right singular vectors of all tables stacked."""
        return _right_vectors(tables, rank)


def _right_vectors(tables: Sequence[Tensor], rank: int) -> Tensor:
    """(d, k) of tables (n, d) stacked, through their (d, d) Gram matrix: one pass over the rows."""
    width = tables[0].shape[1]
    gram = torch.zeros(width, width, dtype=torch.float64, device=tables[0].device)
    for table in tables:
        for chunk in table.split(_CHUNK_ROWS):
            rows = chunk.double()
            gram += rows.T @ rows
    _, vectors = torch.linalg.eigh(gram)
    basis: Tensor = vectors.flip(1)[:, :rank].contiguous()
    return basis
