"""The serving form: projections of the tables folded into whatever reads the embedding, so that they cost nothing.

The embedding returns its latents z side by side, (B, S), and every reader is replaced by one that reads z. With
e_f = U_f z_f + mu_f per field (a numeric field is e_j = v_j x_j, hence U = v_j and z = x_j; a dense one has U = I):

    linear layer    W e + b = [W_1 U_1, ..., W_N U_N] z + (b + W mu)
    FM              sum_f e_f = S z + m, one linear map; sum_f |e_f|^2 = sum_i q_i z_i^2 + 2 (U^T mu)^T z + |mu|^2, where the
                    U_f are made orthonormal by QR (the table absorbs R), for fine-tuning does not keep them so
    cross network   every layer's output is alpha_l x_0 + B_l, so that only the scalars w_l^T x_0 matter, each linear in z

A reader without a rule keeps the whole embedding explicit. Batch normalisation behind a linear layer is folded into it.
"""

import copy
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.compression.embedding import FactoredEmbedding, FoldedEmbedding, ProjectedGroup, TableGroup
from ctrlab.compression.latents import Block, LatentMap
from ctrlab.compression.linear import FactoredLinear, scale_output_, set_linear_
from ctrlab.compression.plan import merges
from ctrlab.evaluation.cost import foldable_norms, folded_readers, measure_cost
from ctrlab.evaluation.profile import cheaper
from ctrlab.models.base import CTRModel
from ctrlab.models.layers import MLP, CrossNetwork, FieldEmbedding, InnerProductFM

_CHUNK_ROWS = 65_536


#: A field's rows, with U_f and mu_f or None where it is dense.
Source = tuple[Tensor, Tensor | None, Tensor | None]


#: rule(model, reader's name, map): replace the reader, in place, by one that reads the latents.
FoldRule = Callable[[CTRModel, str, LatentMap], None]
_RULES: dict[type[nn.Module], FoldRule] = {}


def fold_rule(module_class: type[nn.Module]) -> Callable[[FoldRule], FoldRule]:
    """Decorator: how a reader of the embedding is folded; its cost is registered in `evaluation.cost`."""

    def file(rule: FoldRule) -> FoldRule:
        _RULES[module_class] = rule
        return rule

    return file


def serving_form(model: CTRModel) -> CTRModel:
    """The form to serve and to measure: folded, or as it is where folding gains nothing (see `evaluation.profile.cheaper`)."""
    folded = fold(model)
    as_is = measure_cost(model)
    return copy.deepcopy(model).eval() if cheaper(as_is, measure_cost(folded)) is as_is else folded


@torch.no_grad()
def fold(model: CTRModel) -> CTRModel:
    """The serving form of `model`, in evaluation mode; `model` itself is not changed. Logits agree to rounding.

    Works on compressed and uncompressed models; a folded one is copied.
    """
    structure = getattr(model, "structure", None) or {"kind": "factored", "ranks": {}, "bottleneck": "none", "folded": False}
    if structure["folded"]:
        return copy.deepcopy(model)
    readers, _ = folded_readers(model)
    embedding = cast("FieldEmbedding | FactoredEmbedding", model.embedding)
    memo = {id(embedding): embedding} if readers else {}  # not copied only to be replaced
    folded = copy.deepcopy(model, memo)
    _fold_norms(folded)
    if readers:
        with torch.random.fork_rng(devices=[]):
            folded.embedding, latent_map = _fold_embedding(embedding)
            for reader in readers:
                _rule_for(folded.get_submodule(reader.name))(folded, reader.name, latent_map)
    folded.structure = {**structure, "folded": True}
    return folded.eval()


def _rule_for(reader: nn.Module) -> FoldRule:
    return next(_RULES[base] for base in type(reader).__mro__ if base in _RULES)


def _fold_norms(model: nn.Module) -> None:
    """In place: batch normalisation in evaluation mode is a scale and a shift of the layer before it."""
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
    """Latent tables, and how each field is read from them. Bases become orthonormal: U z = Q (R z)."""
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
    """field -> (its rows, U_f and mu_f or None where it is dense)."""
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
    """target (n, k) <- table (n, k) R^T, row by row z' = R z, in float64 chunks."""
    for start in range(0, len(table), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        target[rows].copy_(table[rows].double() @ mixing.T)


class FoldedFM(nn.Module):
    """1/2 (|S z + m|^2 - sum_i (q_i z_i + l_i) z_i - c): the FM of the restored vectors, exactly, from the latents z.

    Parameters: (d + 2) S + d + 1.
    """

    compression_note = "folded for serving"

    def __init__(self, latent_width: int, embed_dim: int) -> None:
        super().__init__()
        self.total_weight = nn.Parameter(torch.zeros(embed_dim, latent_width))
        self.total_bias = nn.Parameter(torch.zeros(embed_dim))
        self.square = nn.Parameter(torch.zeros(latent_width))
        self.linear = nn.Parameter(torch.zeros(latent_width))
        self.constant = nn.Parameter(torch.zeros(1))

    def row_macs(self) -> int:
        """The map, the square of the sum, and z q z + l z."""
        return self.total_weight.numel() + len(self.total_bias) + 3 * len(self.square)

    def forward(self, z: Tensor) -> Tensor:
        """(B, S) -> (B,)."""
        total = functional.linear(z, self.total_weight, self.total_bias)
        own = (z * (z * self.square + self.linear)).sum(dim=1)
        return 0.5 * (total.square().sum(dim=1) - own - self.constant)


class FoldedCross(nn.Module):
    """w_head^T x_L of a cross network from its latents: x_l = alpha_l x_0 + B_l with B_l = sum_{m<l} b_m constant.

    alpha_0 = 1, alpha_{l+1} = alpha_l (1 + w_l^T x_0) + B_l^T w_l; the head gives alpha_L w_head^T x_0 + B_L^T w_head.
    Parameters: (L + 1) S + 2 (L + 1) for L cross layers.
    """

    compression_note = "folded for serving"

    def __init__(self, latent_width: int, num_layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_layers + 1, latent_width))
        self.bias = nn.Parameter(torch.zeros(num_layers + 1))
        self.offsets = nn.Parameter(torch.zeros(num_layers + 1))

    def row_macs(self) -> int:
        return self.weight.numel() + len(self.bias)

    def forward(self, z: Tensor) -> Tensor:
        """(B, S) -> (B, 1), what the head would have given."""
        *scalars, head = functional.linear(z, self.weight, self.bias).unbind(dim=1)
        *offsets, head_offset = self.offsets.unbind()
        alpha = torch.ones_like(head)
        for scalar, offset in zip(scalars, offsets, strict=True):
            alpha = alpha + alpha * scalar + offset
        return (alpha * head + head_offset).unsqueeze(1)


@fold_rule(MLP)
def _fold_mlp(model: CTRModel, name: str, latent_map: LatentMap) -> None:
    """Only the first layer reads the embedding. Two factors become one layer where that is no larger."""
    first = cast(nn.Sequential, model.get_submodule(name))[0]
    if isinstance(first, FactoredLinear):
        new: nn.Module = _fold_factored(first, latent_map)
    else:
        dense = cast(nn.Linear, first)
        new = _linear(dense, *latent_map.compose(dense.weight, dense.bias))
    model.set_submodule(f"{name}.0", new)


def _fold_factored(first: FactoredLinear, latent_map: LatentMap) -> nn.Module:
    weight, bias = latent_map.compose(first.reduce.weight, first.reduce.bias)
    if first.bottleneck == "none" and merges(latent_map.latent_width, first.out_features, first.rank):
        restore = first.restore.weight.double()
        return _linear(first.reduce, restore @ weight, restore @ bias + first.restore.bias.double())
    first.reduce = _linear(first.reduce, weight, bias)
    return first


def _linear(like: nn.Linear, weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with these values, in the type and on the device of `like`."""
    new = nn.Linear(weight.shape[1], weight.shape[0]).to(like.weight)
    set_linear_(new, weight, bias)
    return new


@fold_rule(InnerProductFM)
def _fold_fm(model: CTRModel, name: str, latent_map: LatentMap) -> None:
    weight, bias = latent_map.total()
    square, linear, constant = latent_map.square_norms()
    new = FoldedFM(latent_map.latent_width, len(weight)).to(next(model.parameters()))
    for parameter, values in zip(new.parameters(), (weight, bias, square, linear, constant.reshape(1)), strict=True):
        parameter.copy_(values)
    model.set_submodule(name, new)


@fold_rule(CrossNetwork)
def _fold_cross(model: CTRModel, name: str, latent_map: LatentMap) -> None:
    """The network and the head that reads it, together; the head's place is taken by the identity."""
    cross = cast(CrossNetwork, model.get_submodule(name))
    head = cast(nn.Linear, model.get_submodule(f"{name}_head"))
    vectors = torch.cat([cross.weights, head.weight]).double()
    constants = torch.cat([torch.zeros_like(cross.biases[:1]), cross.biases.cumsum(0)]).double()  # B_0 .. B_L
    offsets = (constants * vectors).sum(dim=1)
    if head.bias is not None:
        offsets[-1] += head.bias.double().squeeze()
    new = FoldedCross(latent_map.latent_width, len(cross.weights)).to(cross.weights)
    weight, bias = latent_map.compose(vectors)
    for parameter, values in zip(new.parameters(), (weight, bias, offsets), strict=True):
        parameter.copy_(values)
    model.set_submodule(name, new)
    model.set_submodule(f"{name}_head", nn.Identity())
