"""A model with some layers truncated in place, without copying its tables.

`compress_model` would store latents (rows - mu) U; here the vectors of a batch are projected after their look-up, which gives the
same numbers.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from ctrlab.compression.factors import Compressor
from ctrlab.compression.linear import FactoredLinear
from ctrlab.data.schema import Fields
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.base import CTRModel
from ctrlab.models.inventory import list_layers
from ctrlab.models.layers import FieldEmbedding, with_raw_values
from ctrlab.models.structure import Basis, Bottleneck

Spectra = Mapping[str, LayerSpectrum]


@contextmanager
def truncated(
    model: CTRModel, ranks: Mapping[str, int], spectra: Spectra, compressor: Compressor, bottleneck: Bottleneck, basis: Basis
) -> Iterator[None]:
    """`model` with the layers of `ranks` truncated, for as long as the context lasts; no table is copied."""
    layers = [layer for layer in list_layers(model) if layer.layer_name in ranks]
    swapped: dict[str, nn.Module] = {}
    for layer in layers:
        name = layer.module_name
        if layer.kind == "linear":
            dense, rank = cast(nn.Linear, model.get_submodule(name)), ranks[layer.layer_name]
            factored = FactoredLinear.unfilled(dense, rank, bottleneck)
            factored.fill_(dense, compressor, spectra.get(layer.layer_name))
            swapped[name] = factored
        elif name not in swapped:
            embedding = cast(FieldEmbedding, model.get_submodule(name))
            swapped[name] = _truncated_embedding(embedding, name, ranks, spectra, compressor, basis)
    originals = {name: model.get_submodule(name) for name in swapped}
    try:
        for name, module in swapped.items():
            model.set_submodule(name, module.eval())
        yield
    finally:
        for name, module in originals.items():
            model.set_submodule(name, module)


@torch.no_grad()
def _truncated_embedding(
    dense: FieldEmbedding, name: str, ranks: Mapping[str, int], spectra: Spectra, compressor: Compressor, basis: Basis
) -> "TruncatedEmbedding":
    names = [f"{name}.{field}" for field in dense.schema.table_names]
    own = [spectra.get(layer_name) for layer_name in names]
    tables = [dense.categorical.table.weight[dense.categorical.rows_of(table)] for table in range(len(names))]
    projections: dict[int, tuple[Tensor, Tensor]] = {}
    if basis == "shared":
        vectors = compressor.shared_basis(tables, own, next(ranks[layer_name] for layer_name in names if layer_name in ranks))
        everywhere = (vectors @ vectors.T, vectors.new_zeros(len(vectors)))
        return TruncatedEmbedding(dense, dict.fromkeys(range(len(names)), everywhere), vectors)
    for table, layer_name in enumerate(names):
        if layer_name in ranks:
            factors = compressor.table_factors(tables[table], own[table], ranks[layer_name])
            projections[table] = (factors.encoder @ factors.basis.T, factors.mean)
    return TruncatedEmbedding(dense, projections, None)


class TruncatedEmbedding(nn.Module):
    """A FieldEmbedding whose vectors are projected on the directions kept: e' = mu + P^T (e - mu), table by table.

    projections: {table: (P (d, d), mu (d,)) in float64}; other tables stay as they are.
    numeric: U (d, k) that numeric fields' vectors are projected on as well, about zero; None leaves them.
    """

    projection: Tensor
    shift: Tensor

    def __init__(self, dense: FieldEmbedding, projections: Mapping[int, tuple[Tensor, Tensor]], numeric: Tensor | None) -> None:
        super().__init__()
        # Not a submodule: its parameters are the original's.
        self._dense = [dense]
        self.schema = dense.schema
        self.embed_dim = dense.embed_dim
        self.raw_values = dense.raw_values
        width, like = dense.embed_dim, dense.categorical.table.weight
        projection = torch.eye(width, dtype=torch.float64, device=like.device).repeat(len(self.schema.table_names), 1, 1)
        shift = torch.zeros(len(projection), width, dtype=torch.float64, device=like.device)
        for table, (own, mean) in projections.items():
            projection[table] = own
            shift[table] = mean - mean @ own
        self.register_buffer("projection", projection.to(like.dtype), persistent=False)
        self.register_buffer("shift", shift.to(like.dtype), persistent=False)
        self.numeric_projection = None if numeric is None else (numeric @ numeric.T).to(like.dtype)
        # Only the tables that are truncated are multiplied: a single one, while its sensitivity is measured.
        self.positions = [table for table in sorted(projections) if table < len(self.schema.field_names)]

    def forward(self, fields: Fields) -> Tensor:
        """-> (B, M, d), as FieldEmbedding gives it."""
        vectors: Tensor = self._dense[0](fields)
        if self.positions:
            chosen = vectors[:, self.positions].transpose(0, 1)
            shift = self.shift[self.positions].unsqueeze(1)
            vectors[:, self.positions] = torch.baddbmm(shift, chosen, self.projection[self.positions]).transpose(0, 1)
        if self.numeric_projection is not None and vectors.shape[1] > len(self.schema.field_names):
            start = len(self.schema.field_names)
            vectors[:, start:] = vectors[:, start:] @ self.numeric_projection
        return vectors

    def look_up(self, ids: Tensor, table: int) -> Tensor:
        """ids (...) of one of `schema.table_names` -> vectors (..., d), as FieldEmbedding gives them."""
        return self._dense[0].look_up(ids, table) @ self.projection[table] + self.shift[table]

    def dense_input(self, embeddings: Tensor, fields: Fields) -> Tensor:
        """(B, M, d) -> (B, D), as FieldEmbedding gives it."""
        return with_raw_values(embeddings.flatten(1), fields, self.raw_values)
