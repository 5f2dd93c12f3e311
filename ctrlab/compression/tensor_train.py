"""Tables as tensor trains: a row is the product of three small matrices (TT-Rec, Yin et al., 2021, arXiv 2101.11714)."""

from collections.abc import Sequence
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from ctrlab.compression.embedding import PartTable, ReducedGroup, TableSource
from ctrlab.data.schema import FeatureSchema
from ctrlab.plans.table_forms import TensorTrainShape, tensor_train_shape

_CHUNK_ROWS = 16_384


class TensorTrainTable(nn.Module):
    """e(i) = G_1[i_1] G_2[i_2] G_3[i_3] with i = (i_1 n_2 + i_2) n_3 + i_3.

    G_1[i_1] is (d_1, R_1), G_2[i_2] (R_1, d_2 R_2) and G_3[i_3] (R_2, d_3).
    """

    def __init__(self, shape: TensorTrainShape) -> None:
        super().__init__()
        self.shape = shape
        self.cores = nn.ModuleList(PartTable([rows], width) for rows, width in shape.cores)

    def row_macs(self) -> int:
        """Counted by the group, which knows how often a row looks up."""
        return 0

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) -> (..., d)."""
        (_, n2, n3), (d1, d2, d3), (first, second) = self.shape.ids, self.shape.widths, self.shape.ranks
        flat = ids.reshape(-1)
        left, rest = torch.div(flat, n2 * n3, rounding_mode="floor"), flat % (n2 * n3)
        places = (left, torch.div(rest, n3, rounding_mode="floor"), rest % n3)
        parts = [cast(PartTable, core).look_up(place, 0) for core, place in zip(self.cores, places, strict=True)]
        rows = torch.bmm(parts[0].reshape(-1, d1, first), parts[1].reshape(-1, first, d2 * second))
        rows = torch.bmm(rows.reshape(-1, d1 * d2, second), parts[2].reshape(-1, second, d3))
        return rows.reshape(*ids.shape, d1 * d2 * d3)

    def fill_(self, table: Tensor, weights: Tensor) -> None:
        """Set the cores to the decomposition of `table` (num_ids, d), of those tried the least squared error by `weights`."""
        separable = _separable(weights, self.shape)
        found = [decompose(table, self.shape, scales) for scales in ([torch.ones_like(own) for own in separable], separable)]
        errors = []
        for cores in found:
            self._set(cores)
            errors.append(self._squared_error(table, weights))
        self._set(found[errors.index(min(errors))])

    def _set(self, cores: Sequence[Tensor]) -> None:
        for part, core in zip(self.cores, cores, strict=True):
            cast(PartTable, part).table.weight.copy_(core)

    def _squared_error(self, table: Tensor, weights: Tensor) -> float:
        error = 0.0
        for start in range(0, len(table), _CHUNK_ROWS):
            ids = torch.arange(start, min(start + _CHUNK_ROWS, len(table)), device=table.device)
            gaps = (self(ids).double() - table[ids].double()).square().sum(1)
            error += float(gaps @ weights[ids])
        return error


def _separable(weights: Tensor, shape: TensorTrainShape) -> list[Tensor]:
    """(n_1,), (n_2,), (n_3,): scales whose product is the root of the weights as if their three indices were independent."""
    padded = weights.new_zeros(prod(shape.ids))
    padded[: len(weights)] = weights
    cube = padded.reshape(shape.ids)
    marginals = [cube.sum((1, 2)), cube.sum((0, 2)), cube.sum((0, 1))]
    return [(own / own.mean()).clamp(min=1e-6).sqrt() for own in marginals]


def decompose(table: Tensor, shape: TensorTrainShape, scales: Sequence[Tensor]) -> list[Tensor]:
    """TT-SVD (Oseledets, 2011) of a table (num_ids, d), its ids weighted by the product of squared scales.

    Scaling the three axes scales the cores, so that weights of that form are taken into account exactly.

    Returns:
        float64 cores, rows as they are looked up: (n_1, d_1 R_1), (n_2, R_1 d_2 R_2), (n_3, R_2 d_3).
    """
    (n1, n2, n3), (d1, d2, d3), (first, second) = shape.ids, shape.widths, shape.ranks
    padded = table.new_zeros((n1 * n2 * n3, table.shape[1]), dtype=torch.float64)
    padded[: len(table)] = table
    tensor = padded.reshape(n1, n2, n3, d1, d2, d3)
    for axis, scale in enumerate(scales):
        tensor = tensor * scale.reshape([-1 if place == axis else 1 for place in range(6)])
    unfolded = tensor.permute(0, 3, 1, 4, 2, 5).reshape(n1 * d1, -1)
    left, rest = _truncated_svd(unfolded, first)
    middle, right = _truncated_svd(rest.reshape(first * n2 * d2, n3 * d3), second)
    cores = [
        left.reshape(n1, d1 * first),
        middle.reshape(first, n2, d2 * second).transpose(0, 1).reshape(n2, -1),
        right.reshape(second, n3, d3).transpose(0, 1).reshape(n3, -1),
    ]
    return [core / scale.unsqueeze(1) for core, scale in zip(cores, scales, strict=True)]


def _truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(rows, rank) orthonormal and (rank, columns) with the best product; zeros beyond the rank that the matrix has."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    known = min(rank, len(values))
    first, second = matrix.new_zeros(len(matrix), rank), matrix.new_zeros(rank, matrix.shape[1])
    first[:, :known], second[:known] = left[:, :known], values[:known, None] * right[:known]
    return first, second


class TensorTrainGroup(ReducedGroup):
    """Fields of one rank as tensor trains of the size that the rank stands for (`tensor_train_shape`).

    Parameters: of all cores, in tables; per field d in `mean`.
    """

    def __init__(self, schema: FeatureSchema, fields: Sequence[int], rank: int, embed_dim: int) -> None:
        super().__init__(schema, fields, rank, embed_dim)
        self.trains = nn.ModuleList(TensorTrainTable(tensor_train_shape(num_ids, embed_dim, rank)) for num_ids in self.dims)
        self.mean = nn.Parameter(torch.zeros(len(self.fields), embed_dim))

    def row_macs(self) -> int:
        """Of the products of the cores."""
        shapes = [cast(TensorTrainTable, train).shape for train in self.trains]
        return sum(times * shape.macs for times, shape in zip(self.look_ups, shapes, strict=True))

    def fill_(self, position: int, source: TableSource) -> None:
        """The frequency-weighted mean, and the decomposition of the residual. Ids never seen count as seen once."""
        table = source.weight.double()
        weights = table.new_ones(len(table))
        if source.counts is not None:
            weights += torch.tensor(source.counts, dtype=torch.float64, device=table.device)
        mean = weights @ table / weights.sum()
        self.mean[position].copy_(mean)
        cast(TensorTrainTable, self.trains[position]).fill_(table - mean, weights)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) -> e (B, fields of this group, d)."""
        own = self.own_ids(ids)
        if not own.shape[1]:
            return self.mean.new_zeros(len(ids), 0, self.mean.shape[1])
        vectors = [self.trains[field](own[:, field]) for field in range(own.shape[1])]
        return torch.stack(vectors, dim=1) + self.mean[: len(vectors)]

    def look_up(self, ids: Tensor, position: int) -> Tensor:
        """ids (...) of the table at `position` of this group -> e (..., d)."""
        return self.trains[position](ids) + self.mean[position]  # type: ignore[no-any-return]
