"""Folding: the projections of reduced tables are merged into the layers that read the embedding, so that they cost nothing.

The folded embedding returns its latents z side by side, (B, S), and every reader is replaced by one that reads z. With
e_f = U_f z_f + mu_f per field (a numeric field is e_j = v_j x_j, hence U = v_j and z = x_j; a dense one has U = I):

    linear layer    W e + b = [W_1 U_1, ..., W_N U_N] z + (b + W mu)
    FM              sum_f e_f = S z + m, one linear map; sum_f |e_f|^2 = sum_i q_i z_i^2 + 2 (U^T mu)^T z + |mu|^2, where the
                    U_f are made orthonormal by QR (the table absorbs R), for fine-tuning does not keep them orthonormal
    cross network   every layer's output is alpha_l x_0 + B_l, so it depends on the scalars w_l^T x_0 alone, each linear in z

If a reader has no folding rule, the embedding keeps its explicit projections. Batch normalisations are folded into the linear
layers before them.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ctrlab.compression.embedding import FactoredEmbedding, FoldedEmbedding, ProjectedGroup, TableGroup
from ctrlab.compression.latents import Block, LatentMap
from ctrlab.compression.linear import FactoredLinear, scale_output_
from ctrlab.compression.readers import rule_for
from ctrlab.compression.shared import Restored, SharedBasisEmbedding, SharedLatents
from ctrlab.models.base import CTRModel
from ctrlab.models.cost import measure_cost
from ctrlab.models.folding import foldable_norms, readers_of
from ctrlab.models.layers import FieldEmbedding
from ctrlab.models.profile import Cost, ReaderProfile, cheaper
from ctrlab.models.structure import Structure

_CHUNK_ROWS = 65_536

#: (rows, U_f, mu_f) of a field; the last two are None if it is dense.
Source = tuple[Tensor, Tensor | None, Tensor | None]


def serving_form(model: CTRModel) -> CTRModel:
    """The form to serve and to measure: folded, or unchanged where folding does not reduce the cost (see `profile.cheaper`)."""
    return cheaper_form(model, measure_cost(model))[0]


def cheaper_form(model: CTRModel, cost: Cost) -> tuple[CTRModel, Cost]:
    """`serving_form(model)` with its cost, for a model whose own `cost` is known."""
    folded = fold(model)
    folded_cost = measure_cost(folded)
    return (copy.deepcopy(model).eval(), cost) if cheaper(cost, folded_cost) is cost else (folded, folded_cost)


@torch.no_grad()
def fold(model: CTRModel) -> CTRModel:
    """The serving form of `model`, in evaluation mode; `model` itself is not changed. Logits agree to rounding.

    Works on compressed and uncompressed models; a folded or quantised model is copied.
    """
    structure = model.structure or Structure()
    if structure.serves_only:
        return copy.deepcopy(model)
    readers = {name: readers_of(model, name) for name in model.embedding_readers}
    embeddings = {name: model.get_submodule(name) for name in readers if _folds(model.get_submodule(name), readers[name])}
    folded = copy.deepcopy(
        model, {id(module): module for module in embeddings.values()}
    )  # these are replaced, so they are not copied
    _fold_norms(folded)
    for name, embedding in embeddings.items():
        with torch.random.fork_rng(devices=[]):
            _fold_into_readers(folded, name, embedding, readers[name])
    folded.structure = replace(structure, folded=True)
    return folded.eval()


def _folds(embedding: nn.Module, readers: tuple[ReaderProfile, ...]) -> bool:
    """Whether an embedding folds: always with a shared basis (readers may restore the vectors), never without latents."""
    if isinstance(embedding, FactoredEmbedding) and not embedding.affine:
        return False
    return isinstance(embedding, SharedBasisEmbedding) or (bool(readers) and all(reader.foldable for reader in readers))


def _fold_into_readers(model: CTRModel, name: str, embedding: nn.Module, readers: tuple[ReaderProfile, ...]) -> None:
    """In place: the embedding called `name` returns latents, and each of its readers reads them."""
    if isinstance(embedding, SharedBasisEmbedding):
        latents, latent_map = _fold_shared(embedding)
        model.set_submodule(name, latents)
        for reader in readers:
            if reader.rotation_invariant:
                continue
            if reader.foldable:
                rule_for(model.get_submodule(reader.name))(model, reader.name, latent_map)
            else:
                _restore_before(model, reader.name, latent_map)
        return
    folded, latent_map = _fold_embedding(cast("FieldEmbedding | FactoredEmbedding", embedding))
    model.set_submodule(name, folded)
    for reader in readers:
        rule_for(model.get_submodule(reader.name))(model, reader.name, latent_map)


def _fold_shared(embedding: SharedBasisEmbedding) -> tuple[SharedLatents, LatentMap]:
    """Latents of every field in one orthonormal basis: U z = Q (R z)."""
    schema, old = embedding.schema, embedding.latents
    basis, mixing = torch.linalg.qr(embedding.restore.double())
    new = SharedLatents(schema, embedding.rank, raw_values=embedding.raw_values).to(embedding.restore)
    _mix_rows_(new.categorical.table.weight, old.categorical.table.weight, mixing)
    new.numeric.copy_(old.numeric.double() @ mixing.T)
    blocks = [Block(field, basis, basis.new_zeros(len(basis))) for field in range(old.num_vectors)]
    raw_values = len(schema.value_names) if embedding.raw_values else 0
    return new, LatentMap(blocks, embedding.embed_dim, raw_values, basis, shared=True)


def _restore_before(model: CTRModel, reader_name: str, latent_map: LatentMap) -> None:
    """In place: wrap a reader that needs the vectors in a module that restores them from latents."""
    reader = model.get_submodule(reader_name)
    basis = latent_map.like if not latent_map.blocks else latent_map.blocks[0].basis
    restored = Restored(reader, len(basis), basis.shape[1], len(latent_map.blocks))
    restored.restore.data = basis.to(next(model.parameters()))
    model.set_submodule(reader_name, restored)


def _fold_norms(model: nn.Module) -> None:
    """In place: merge batch normalisations, which are a scale and a shift in evaluation mode, into the layers before them."""
    for sequence, position in list(foldable_norms(model)):
        norm = cast(nn.BatchNorm1d, sequence[position])
        if norm.running_mean is None or norm.running_var is None:
            continue
        before = cast("nn.Linear | FactoredLinear", sequence[position - 1])
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        shift = -norm.running_mean.double() * scale
        if norm.affine:
            scale, shift = scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
        scale_output_(before.restore if isinstance(before, FactoredLinear) else before, scale, shift)
        sequence[position] = nn.Identity()


def _fold_embedding(embedding: FieldEmbedding | FactoredEmbedding) -> tuple[FoldedEmbedding, LatentMap]:
    """The folded embedding, and the map from its latents to each field's vector. Bases become orthonormal: U z = Q (R z)."""
    d, schema = embedding.embed_dim, embedding.schema
    ranks: tuple[int | None, ...] = (None,) * len(schema.field_dims)
    if isinstance(embedding, FactoredEmbedding):
        ranks = embedding.ranks
    numeric = embedding.numeric.double()
    folded = FoldedEmbedding(schema, [d if rank is None else rank for rank in ranks]).to(numeric.device, embedding.numeric.dtype)
    sources = dict(_field_sources(embedding))
    blocks = []
    for group in cast("list[TableGroup]", list(folded.groups)):
        for position, field in enumerate(group.fields):
            table, projection, mean = sources[field]
            target = group.weight[group.tables.rows_of(position)]
            if projection is None or mean is None:
                target.copy_(table)
                blocks.append(Block(field, torch.eye(d, dtype=torch.float64, device=numeric.device), numeric.new_zeros(d)))
                continue
            basis, mixing = torch.linalg.qr(projection.double())
            _mix_rows_(target, table, mixing)
            blocks.append(Block(field, basis, mean.double()))
    for number, vector in enumerate(numeric):
        place = len(schema.field_dims) + number
        blocks.append(Block(place, vector.unsqueeze(1), torch.zeros_like(vector), float(vector.square().sum())))
    return folded, LatentMap(blocks, d, len(schema.value_names) if embedding.raw_values else 0, numeric)


def _field_sources(embedding: FieldEmbedding | FactoredEmbedding) -> Iterator[tuple[int, Source]]:
    """Pairs (field, its `Source`)."""
    if isinstance(embedding, FieldEmbedding):
        for field in range(len(embedding.schema.field_dims)):
            yield field, (embedding.categorical.table.weight[embedding.categorical.rows_of(field)], None, None)
        return
    for group in cast("list[TableGroup]", list(embedding.groups)):
        for position, field in enumerate(group.fields):
            rows = group.weight[group.tables.rows_of(position)]
            if isinstance(group, ProjectedGroup):
                yield field, (rows, group.projection[position], group.mean[position])
            else:
                yield field, (rows, None, None)


def _mix_rows_(target: Tensor, table: Tensor, mixing: Tensor) -> None:
    """target (n, k) <- table (n, k) R^T, that is z' = R z for each row, in float64 chunks."""
    for start in range(0, len(table), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        target[rows].copy_(table[rows].double() @ mixing.T)
