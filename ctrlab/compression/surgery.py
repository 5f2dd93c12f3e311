"""Replacing layers by their factors; the original stays as it was."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ctrlab.compression.embedding import FactoredEmbedding, ProjectedGroup, ReducedGroup, TableGroup, TableSource
from ctrlab.compression.factors import Compressor, TableFactors
from ctrlab.compression.fold import fold
from ctrlab.compression.linear import FactoredLinear, factor_linear_, factors_of
from ctrlab.compression.projection import project_rows_
from ctrlab.compression.quantize import prepare_
from ctrlab.compression.quantized import is_quantized
from ctrlab.compression.shared import SharedBasisEmbedding
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.models.base import CTRModel
from ctrlab.models.inventory import ModelLayer, list_layers
from ctrlab.models.layers import FieldEmbedding
from ctrlab.models.profile import LayerProfile, ModelProfile
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import Basis, Bottleneck, CompressionSpec, RankPlan
from ctrlab.plans.methods import METHODS, method_keeping
from ctrlab.plans.ranks import effective_ranks, spectrum_faults, validate_plan
from ctrlab.plans.serving_forms import activation_parameters

#: {layer_name of a table: how often training looks up each of its ids, (num_ids,)}.
Counts = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class CompressedLayer:
    """One compressible layer, before and after; `rank` None where it stayed dense."""

    name: str
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
    spec: CompressionSpec,
    spectra: Mapping[str, LayerSpectrum] | None = None,
    *,
    profile: ModelProfile | None = None,
    respect_break_even: bool = True,
    counts: Counts | None = None,
) -> CompressionResult:
    """The trainable compressed form of `model`, which itself is not changed.

    Args:
        model: may have factored layers already; the plan then names others.
        spec: what is done to it. Its precision is one of serving, see `compression.quantize`.
        spectra: of this model's layers, with eigenvectors; not needed by methods that look at weights only.
        profile: of the model, or of the original that it was made from; computed if None, by a forward pass.
        respect_break_even: leave layers dense that factors would not make smaller; False factors them all the same.
        counts: for methods that look at how often ids occur (`decomposition.collect.look_up_counts`).

    Raises:
        CompressionError: the plan does not fit the model or the spectra; every fault is listed.
    """
    profile = profile or profile_model(model)
    validate_plan(profile, spec.plan)
    method, bottleneck, basis = METHODS[spec.method], spec.bottleneck, spec.basis
    form = method.table_form
    _check_earlier_compression(model, bottleneck, basis, form)
    ranks = effective_ranks(profile, spec, respect_break_even=respect_break_even)
    compressor: Compressor = method.compressor()
    spectra = spectra or {}
    if method.needs_spectra:
        _check_spectra(profile, spectra, ranks)
    compressed = _copy_around(model, [profile.by_name[name].embedding or name for name in ranks])
    with torch.random.fork_rng(devices=[]):  # new modules draw their initial values, which are overwritten
        _replace_layers(compressed, profile.layers, ranks, bottleneck, basis, form)
    for name, rank in ranks.items():
        if profile.by_name[name].kind == "linear":
            factors = factors_of(cast(nn.Linear, model.get_submodule(name)), compressor, spectra.get(name), rank)
            factor_linear_(cast(FactoredLinear, compressed.get_submodule(name)), factors)
    for name in {profile.by_name[name].embedding for name in ranks} - {""}:
        _fill_tables(model, compressed, name, spectra, compressor, counts or {})
    _state_structure(compressed, getattr(model, "structure", None), ranks, bottleneck, basis, form)
    return CompressionResult(
        model=compressed, plan=RankPlan.of(ranks), rows=layer_rows(profile, ranks, spec),
        skipped=skipped_layers(profile, spec.plan, ranks),
    )  # fmt: skip


def rebuild(model: CTRModel, structure: Mapping[str, Any]) -> CTRModel:
    """The modules of a compressed model, ready for its saved state, from a freshly built original and `model.structure`.

    The original is consumed: its parts are reused or dropped.
    """
    with torch.random.fork_rng(devices=[]):
        _replace_layers(
            model, list_layers(model), structure["ranks"], structure["bottleneck"], structure["basis"], structure["tables"]
        )
    _state_structure(model, None, structure["ranks"], structure["bottleneck"], structure["basis"], structure["tables"])
    if structure["folded"]:
        model = fold(model)
    prepare_(model, structure["precision"])
    return model


def _check_spectra(profile: ModelProfile, spectra: Mapping[str, LayerSpectrum], ranks: Mapping[str, int]) -> None:
    if faults := spectrum_faults(profile, spectra, ranks, with_eigenvectors=True):
        raise CompressionError("; ".join(faults) + "; collect the spectra of this model and load them with their eigenvectors")


def _check_earlier_compression(model: CTRModel, bottleneck: Bottleneck, basis: Basis, form: str) -> None:
    """Checkpoints keep one kind of bottleneck, one of basis and one of reduced tables, a model."""
    before = getattr(model, "structure", None)
    if not before:
        return
    if before["folded"]:
        raise CompressionError("the model is folded for serving; compress the trainable form it was made from")
    if is_quantized(model):
        raise CompressionError("the model is quantised for serving; compress the trainable form it was made from")
    modules = list(model.modules())
    if any(isinstance(module, FactoredLinear) for module in modules) and before["bottleneck"] != bottleneck:
        raise CompressionError(
            f"the model has {before['bottleneck']} bottlenecks, {bottleneck} was asked for; use one kind throughout"
        )
    reduced = any(isinstance(module, (FactoredEmbedding, SharedBasisEmbedding)) for module in modules)
    if reduced and before["basis"] != basis:
        raise CompressionError(f"the tables have a {before['basis']} basis, {basis} was asked for; use one kind throughout")
    if reduced and before["tables"] != form:
        raise CompressionError(f"the tables are reduced to {before['tables']}, {form} was asked for; use one kind throughout")


def _copy_around(model: CTRModel, replaced: list[str]) -> CTRModel:
    """A deep copy but for the modules that are about to be replaced: a large table is not copied only to be thrown away."""
    shared = [model.get_submodule(name) for name in replaced]
    return copy.deepcopy(model, {id(module): module for module in shared})


def _replace_layers(
    model: CTRModel, layers: Sequence[LayerProfile | ModelLayer], ranks: Mapping[str, int], bottleneck: Bottleneck,
    basis: Basis, form: str,
) -> None:  # fmt: skip
    """In place: put factored modules, with no values yet, where the plan wants them."""
    planned = [layer for layer in layers if layer.layer_name in ranks]
    for layer in planned:
        if layer.kind == "linear":
            dense = cast(nn.Linear, model.get_submodule(layer.module_name))
            model.set_submodule(layer.module_name, FactoredLinear.unfilled(dense, ranks[layer.layer_name], bottleneck))
    for name in {layer.module_name for layer in planned if layer.kind == "embedding"}:
        old = cast(FieldEmbedding, model.get_submodule(name))
        by_field = [ranks.get(f"{name}.{field}") for field in old.schema.table_names]
        model.set_submodule(name, _reduced(old, by_field, basis, form).to(old.categorical.table.weight).train(old.training))


def _reduced(old: FieldEmbedding, by_field: list[int | None], basis: Basis, form: str) -> nn.Module:
    if basis == "per_field":
        return FactoredEmbedding(
            old.schema, old.embed_dim, by_field, raw_values=old.raw_values, reduced=method_keeping(form).group_class()
        )
    (rank,) = set(by_field)
    return SharedBasisEmbedding(old.schema, old.embed_dim, cast(int, rank), raw_values=old.raw_values)


@torch.no_grad()
def _fill_tables(
    model: CTRModel, compressed: CTRModel, name: str, spectra: Mapping[str, LayerSpectrum], compressor: Compressor, counts: Counts
) -> None:
    """Give the tables of the embedding called `name` what they are reduced to."""
    old, new = cast(FieldEmbedding, model.get_submodule(name)), compressed.get_submodule(name)
    layer_names = [f"{name}.{field}" for field in old.schema.table_names]
    tables = [old.categorical.table.weight[old.categorical.rows_of(field)] for field in range(len(layer_names))]
    own = [spectra.get(layer_name) for layer_name in layer_names]
    if isinstance(new, SharedBasisEmbedding):
        _fill_shared(old, new, compressor.shared_basis(tables, own, new.rank))
        return
    assert isinstance(new, FactoredEmbedding)
    new.numeric.copy_(old.numeric)
    init_std = getattr(model.config, "embedding_init_std", 0.01)
    for group in cast("list[TableGroup | ReducedGroup]", list(new.groups)):
        for position, field in enumerate(group.fields):
            known = counts.get(layer_names[field])
            source = TableSource(name=layer_names[field], weight=tables[field], counts=known, init_std=init_std)
            if isinstance(group, ReducedGroup):
                _check_counts(source)
                group.fill_(position, source)
            elif isinstance(group, ProjectedGroup):
                _project_(group, position, source.weight, compressor.table_factors(source.weight, own[field], group.width))
            else:
                group.weight[group.tables.rows_of(position)].copy_(source.weight)


def _project_(group: ProjectedGroup, position: int, table: Tensor, factors: TableFactors) -> None:
    project_rows_(group.weight[group.tables.rows_of(position)], table, factors.basis, factors.mean)
    group.projection[position].copy_(factors.basis)
    group.mean[position].copy_(factors.mean)


def _check_counts(source: TableSource) -> None:
    if source.counts is not None and len(source.counts) != len(source.weight):
        numbers = f"{len(source.counts)} counts were given for the {len(source.weight)} ids of {source.name}"
        raise CompressionError(f"{numbers}; use those of its own dataset")


def _fill_shared(old: FieldEmbedding, new: SharedBasisEmbedding, basis: Tensor) -> None:
    table = old.categorical.table.weight
    project_rows_(new.latents.categorical.table.weight, table, basis, basis.new_zeros(len(basis)))
    new.latents.numeric.copy_(old.numeric.double() @ basis)
    new.restore.copy_(basis)


def _state_structure(
    model: CTRModel, before: Mapping[str, Any] | None, ranks: Mapping[str, int], bottleneck: Bottleneck, basis: Basis,
    form: str,
) -> None:  # fmt: skip
    """Write down on the model what `rebuild` needs; JSON types only."""
    earlier = before["ranks"] if before else {}
    settings = {"bottleneck": bottleneck, "basis": basis, "tables": form, "folded": False, "precision": "float32"}
    model.structure = {"kind": "factored", "ranks": earlier | dict(ranks), **settings}


def layer_rows(profile: ModelProfile, ranks: Mapping[str, int], spec: CompressionSpec) -> tuple[CompressedLayer, ...]:
    """Every compressible layer of a profile with its size before and after, for the effective `ranks`.

    A shared basis itself, d k, is in no table's row, and an index is no parameter.
    """
    return tuple(
        CompressedLayer(
            name=layer.layer_name, kind=layer.kind, rank=ranks.get(layer.layer_name),
            parameters_before=layer.parameters,
            parameters_after=_parameters_after(layer, ranks.get(layer.layer_name), spec),
        )
        for layer in profile.compressible
    )  # fmt: skip


def _parameters_after(layer: LayerProfile, rank: int | None, spec: CompressionSpec) -> int:
    if rank is None:
        return layer.parameters
    if layer.kind == "embedding" and spec.basis == "shared":
        return layer.in_features * rank
    if layer.kind == "embedding":
        return METHODS[spec.method].table_shape(layer.in_features, layer.out_features, rank).parameters
    in_tables, dense, _ = layer.factored(rank, activation_parameters(spec.bottleneck, rank))
    return in_tables + dense


def skipped_layers(profile: ModelProfile, plan: RankPlan, ranks: Mapping[str, int]) -> dict[str, str]:
    """{layer_name: reason} of what cannot be compressed, and of planned layers that are not among the effective `ranks`."""
    reasons = {layer.layer_name: layer.skip_reason for layer in profile.layers if layer.skip_reason is not None}
    for name, rank in plan.as_dict().items():
        if name not in ranks:
            limit = profile.by_name[name].break_even
            reasons[name] = f"rank {rank} is at or above break-even ({limit:.1f}), so the layer stays dense"
    return reasons
