"""Replacing layers by their factors; the original stays as it was."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ctrlab.compression.afm import Compressor
from ctrlab.compression.configs import COMPRESSORS, Bottleneck, RankPlan
from ctrlab.compression.embedding import FactoredEmbedding, ProjectedGroup, TableGroup
from ctrlab.compression.fold import fold
from ctrlab.compression.linear import FactoredLinear, bias_or_zeros, set_linear_
from ctrlab.compression.plan import activation_parameters, effective_ranks, spectrum_faults, validate_plan
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.evaluation.cost import profile_model
from ctrlab.evaluation.profile import LayerProfile, ModelProfile
from ctrlab.models.base import CTRModel
from ctrlab.models.inventory import row_uses, runs_at
from ctrlab.models.layers import FieldEmbedding

_CHUNK_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class CompressedLayer:
    """One compressible layer, before and after; `rank` None where it stayed dense."""

    layer_name: str
    kind: str
    rank: int | None
    parameters_before: int
    parameters_after: int


@dataclass(frozen=True, eq=False, kw_only=True)
class CompressionResult:
    """The compressed model and what was done to get it.

    plan: the ranks really applied; planned layers at or above break-even are not in it.
    rows: every compressible layer.
    skipped: {layer_name: reason} for what cannot be compressed, and for planned layers that would not shrink.
    """

    model: CTRModel
    plan: RankPlan
    rows: tuple[CompressedLayer, ...]
    skipped: dict[str, str]


def compress_model(
    model: CTRModel,
    plan: RankPlan,
    spectra: Mapping[str, LayerSpectrum] | None = None,
    bottleneck: Bottleneck = "none",
    method: str = "afm",
    *,
    respect_break_even: bool = True,
) -> CompressionResult:
    """The trainable compressed form of `model`, which itself is not changed.

    Args:
        model: may have factored layers already; the plan then names others.
        plan: ranks by layer.
        spectra: of this model's layers, with eigenvectors; not needed by methods that look at weights only.
        bottleneck: between the factors of linear layers.
        method: a name in COMPRESSORS.
        respect_break_even: leave layers dense that factors would not make smaller; False factors them all the same.

    Raises:
        CompressionError: the plan does not fit the model or the spectra; every fault is listed.
    """
    profile = profile_model(model)
    validate_plan(profile, plan)
    _check_bottleneck(getattr(model, "structure", None), bottleneck)
    ranks = effective_ranks(profile, plan) if respect_break_even else plan.as_dict()
    compressor = compressor_for(method)
    spectra = spectra or {}
    if compressor.needs_spectra:
        _check_spectra(profile, spectra, ranks)
    compressed = _copy_around(model, [_module_name(name, profile) for name in ranks])
    with torch.random.fork_rng(devices=[]):  # new modules draw their initial values, which are overwritten
        _replace_layers(compressed, ranks, bottleneck)
    _fill_linear(model, compressed, ranks, spectra, compressor, profile)
    _fill_tables(model, compressed, ranks, spectra, compressor)
    _state_structure(compressed, getattr(model, "structure", None), ranks, bottleneck)
    return CompressionResult(
        model=compressed, plan=RankPlan.of(ranks), rows=layer_rows(profile, ranks, bottleneck),
        skipped=skipped_layers(profile, plan, ranks),
    )  # fmt: skip


def compressor_for(method: str) -> Compressor:
    """The registered method called `method`."""
    return cast(Compressor, COMPRESSORS[method].builder()())


def rebuild(model: CTRModel, structure: Mapping[str, Any]) -> CTRModel:
    """The modules of a compressed model, ready for its saved state, from a freshly built original and `model.structure`.

    The original is consumed: its parts are reused or dropped.
    """
    with torch.random.fork_rng(devices=[]):
        _replace_layers(model, structure["ranks"], structure["bottleneck"])
    _state_structure(model, None, structure["ranks"], structure["bottleneck"])
    return fold(model) if structure["folded"] else model


def _check_spectra(profile: ModelProfile, spectra: Mapping[str, LayerSpectrum], ranks: Mapping[str, int]) -> None:
    if faults := spectrum_faults(profile, spectra, ranks, with_eigenvectors=True):
        raise CompressionError("; ".join(faults) + "; collect the spectra of this model and load them with their eigenvectors")


def _check_bottleneck(before: Mapping[str, Any] | None, bottleneck: Bottleneck) -> None:
    """Checkpoints keep one kind of bottleneck a model."""
    if before and before["folded"]:
        raise CompressionError("the model is folded for serving; compress the trainable form it was made from")
    factored = [name for name in before["ranks"] if not name.startswith("embedding.")] if before else []
    if before and factored and before["bottleneck"] != bottleneck:
        raise CompressionError(
            f"the model has {before['bottleneck']} bottlenecks, {bottleneck} was asked for; use one kind throughout"
        )


def _module_name(layer_name: str, profile: ModelProfile) -> str:
    return layer_name if profile.by_name[layer_name].kind == "linear" else "embedding"


def _copy_around(model: CTRModel, replaced: list[str]) -> CTRModel:
    """A deep copy but for the modules that are about to be replaced: a large table is not copied only to be thrown away."""
    shared = [model.get_submodule(name) for name in replaced]
    return copy.deepcopy(model, {id(module): module for module in shared})


def _replace_layers(model: CTRModel, ranks: Mapping[str, int], bottleneck: Bottleneck) -> None:
    """In place: put factored modules, with no values yet, where the plan wants them."""
    tables = {name: rank for name, rank in ranks.items() if name.startswith("embedding.")}
    for name in ranks.keys() - tables.keys():
        dense = cast(nn.Linear, model.get_submodule(name))
        factored = FactoredLinear(dense.in_features, ranks[name], dense.out_features, bottleneck)
        model.set_submodule(name, runs_at(row_uses(dense), factored.to(dense.weight).train(dense.training)))
    if tables:
        old = cast(FieldEmbedding, model.embedding)
        by_field = [tables.get(f"embedding.{field}") for field in old.schema.table_names]
        new = FactoredEmbedding(old.schema, old.embed_dim, by_field, raw_values=old.raw_values)
        model.embedding = new.to(old.categorical.table.weight).train(old.training)


@torch.no_grad()
def _fill_linear(
    model: CTRModel, compressed: CTRModel, ranks: Mapping[str, int], spectra: Mapping[str, LayerSpectrum],
    compressor: Compressor, profile: ModelProfile,
) -> None:  # fmt: skip
    for name, rank in ranks.items():
        if profile.by_name[name].kind != "linear":
            continue
        dense = cast(nn.Linear, model.get_submodule(name))
        weight = dense.weight.double()
        factors = compressor.linear_factors(weight, bias_or_zeros(dense).double(), spectra.get(name), rank)
        factored = cast(FactoredLinear, compressed.get_submodule(name))
        set_linear_(factored.reduce, factors.reduce_weight, factors.reduce_bias)
        set_linear_(factored.restore, factors.restore_weight, factors.restore_bias)


@torch.no_grad()
def _fill_tables(
    model: CTRModel, compressed: CTRModel, ranks: Mapping[str, int], spectra: Mapping[str, LayerSpectrum], compressor: Compressor
) -> None:
    old, new = model.embedding, compressed.embedding
    if not isinstance(new, FactoredEmbedding) or not isinstance(old, FieldEmbedding):
        return  # no table is in this plan
    new.numeric.copy_(old.numeric)
    for group in cast("list[TableGroup]", list(new.groups)):
        for position, field in enumerate(group.fields):
            table = old.categorical.table.weight[old.categorical.rows_of(field)]
            target = group.weight[group.tables.rows_of(position)]
            if not isinstance(group, ProjectedGroup):
                target.copy_(table)
                continue
            name = f"embedding.{old.schema.table_names[field]}"
            basis, mean = compressor.table_factors(table, spectra.get(name), ranks[name])
            project_rows_(target, table, basis, mean)
            group.projection[position].copy_(basis)
            group.mean[position].copy_(mean)


def project_rows_(target: Tensor, table: Tensor, basis: Tensor, mean: Tensor) -> None:
    """target (n, k) <- (table (n, d) - mean) basis, in float64 chunks, ids never seen in training like all others."""
    for start in range(0, len(table), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        target[rows].copy_((table[rows].double() - mean) @ basis)


def _state_structure(model: CTRModel, before: Mapping[str, Any] | None, ranks: Mapping[str, int], bottleneck: Bottleneck) -> None:
    """Write down on the model what `rebuild` needs; JSON types only."""
    earlier = before["ranks"] if before else {}
    model.structure = {"kind": "factored", "ranks": earlier | dict(ranks), "bottleneck": bottleneck, "folded": False}


def layer_rows(profile: ModelProfile, ranks: Mapping[str, int], bottleneck: Bottleneck) -> tuple[CompressedLayer, ...]:
    """Every compressible layer of a profile with its size before and after."""
    return tuple(
        CompressedLayer(
            layer_name=layer.layer_name, kind=layer.kind, rank=ranks.get(layer.layer_name),
            parameters_before=layer.parameters,
            parameters_after=_parameters_after(layer, ranks.get(layer.layer_name), bottleneck),
        )
        for layer in profile.compressible
    )  # fmt: skip


def _parameters_after(layer: LayerProfile, rank: int | None, bottleneck: Bottleneck) -> int:
    if rank is None:
        return layer.parameters
    in_tables, dense, _ = layer.factored(rank, activation_parameters(bottleneck, rank))
    return in_tables + dense


def skipped_layers(profile: ModelProfile, plan: RankPlan, ranks: Mapping[str, int]) -> dict[str, str]:
    """{layer_name: reason} of what cannot be compressed, and of planned layers that are not among the effective `ranks`."""
    reasons = {layer.layer_name: layer.skip_reason for layer in profile.layers if layer.skip_reason is not None}
    for name, rank in plan.as_dict().items():
        if name not in ranks:
            limit = profile.by_name[name].break_even
            reasons[name] = f"rank {rank} is at or above break-even ({limit:.1f}), so the layer stays dense"
    return reasons
