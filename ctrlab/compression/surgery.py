"""`compress_model`: a copy of a model with its layers and tables replaced by reduced ones."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from ctrlab.compression.embedding import FactoredEmbedding, ProjectedGroup, ReducedGroup, TableGroup, TableSource
from ctrlab.compression.factors import Compressor, TableFactors
from ctrlab.compression.fold import fold
from ctrlab.compression.linear import FactoredLinear
from ctrlab.compression.projection import project_rows_
from ctrlab.compression.quantize import prepare_
from ctrlab.compression.quantized import is_quantized
from ctrlab.compression.result import CompressionResult, layer_rows, skipped_layers
from ctrlab.compression.shared import SharedBasisEmbedding
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.models.base import CTRModel
from ctrlab.models.layers import FieldEmbedding
from ctrlab.models.profile import ModelProfile
from ctrlab.models.profiling import profile_model
from ctrlab.models.structure import Structure
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.plans.methods import METHODS, method_keeping
from ctrlab.plans.ranks import effective_ranks, spectrum_faults, validate_plan

M = TypeVar("M", bound=nn.Module)
#: {layer_name of a table: look-ups of each of its ids in training, (num_ids,)}.
CountsByLayer = Mapping[str, np.ndarray[Any, Any]]


def compress_model(
    model: CTRModel,
    spec: CompressionSpec,
    spectra: Mapping[str, LayerSpectrum] | None = None,
    *,
    profile: ModelProfile | None = None,
    respect_break_even: bool = True,
    counts: CountsByLayer | None = None,
) -> CompressionResult[CTRModel]:
    """The trainable compressed form of `model`, which itself is not changed.

    Args:
        model: may have factored layers already, if the plan names others.
        spec: ranks, method, bottleneck and basis. Its precision is applied when serving, by `compression.quantize`.
        spectra: of this model's layers, with eigenvectors; not needed by methods that look at weights only.
        profile: of the model, or of the original that it was made from; computed if None, by a forward pass.
        respect_break_even: leave layers dense that would not become smaller; False factors them as well.
        counts: for methods that weight ids by frequency (`decomposition.collect.look_up_counts`).

    Raises:
        CompressionError: the plan does not fit the model or the spectra; every fault is listed.
    """
    profile = profile or profile_model(model)
    validate_plan(profile, spec.plan)
    method = METHODS[spec.method]
    ranks = effective_ranks(profile, spec, respect_break_even=respect_break_even)
    structure = Structure(ranks=ranks, bottleneck=spec.bottleneck, basis=spec.basis, table_form=method.table_form)
    _check_earlier_compression(model, structure)
    compressor: Compressor = method.compressor()
    spectra = spectra or {}
    if method.needs_spectra:
        check_spectra(profile, spectra, ranks, with_gradients=method.needs_gradients)
    new = _unfilled_modules(model, structure)
    for name, module in new.items():
        if isinstance(module, FactoredLinear):
            module.fill_(cast(nn.Linear, model.get_submodule(name)), compressor, spectra.get(name))
        else:
            _fill_tables(model, name, module, spectra, compressor, counts or {})
    compressed = replace_modules(model, new)
    earlier = model.structure.ranks if model.structure else {}
    compressed.structure = replace(structure, ranks={**earlier, **ranks})
    return CompressionResult(
        model=compressed, spec=spec.replace(plan=RankPlan.of(ranks)), rows=layer_rows(profile, ranks, spec),
        skipped=skipped_layers(profile, spec.plan, ranks),
    )  # fmt: skip


def rebuild(model: CTRModel, structure: Structure) -> CTRModel:
    """A compressed model without its weights, made from the uncompressed `model`, which is modified, and a recorded structure."""
    for name, module in _unfilled_modules(model, structure).items():
        model.set_submodule(name, module)
    model.structure = replace(structure, folded=False, precision="float32", layer_precisions={})
    if structure.folded:
        model = fold(model)
    prepare_(model, structure.precision, structure.layer_precisions)
    return model


def check_spectra(
    profile: ModelProfile, spectra: Mapping[str, LayerSpectrum], ranks: Mapping[str, int], *, with_gradients: bool = False
) -> None:
    """Raise CompressionError unless every layer in `ranks` has a spectrum of its width with eigenvectors; lists every fault."""
    if faults := spectrum_faults(profile, spectra, ranks, with_eigenvectors=True, with_gradients=with_gradients):
        raise CompressionError("; ".join(faults) + "; collect the spectra of this model and load them with their eigenvectors")


def _check_earlier_compression(model: CTRModel, structure: Structure) -> None:
    """A checkpoint records one bottleneck, one basis and one form of reduced tables per model, so later stages must match."""
    before = model.structure
    if before is None:
        return
    if before.folded:
        raise CompressionError("the model is folded for serving; compress the trainable form it was made from")
    if is_quantized(model):
        raise CompressionError("the model is quantised for serving; compress the trainable form it was made from")
    modules = list(model.modules())
    if any(isinstance(module, FactoredLinear) for module in modules) and before.bottleneck != structure.bottleneck:
        raise CompressionError(
            f"the model has {before.bottleneck} bottlenecks, {structure.bottleneck} was asked for; use one kind throughout"
        )
    reduced = any(isinstance(module, (FactoredEmbedding, SharedBasisEmbedding)) for module in modules)
    if reduced and before.basis != structure.basis:
        raise CompressionError(
            f"the tables have a {before.basis} basis, {structure.basis} was asked for; use one kind throughout"
        )
    if reduced and before.table_form != structure.table_form:
        raise CompressionError(
            f"the tables are reduced to {before.table_form}, {structure.table_form} was asked for; use one kind throughout"
        )


def replace_modules(model: M, new: Mapping[str, nn.Module]) -> M:
    """A deep copy of `model` with new modules in place of those of these qualified names, which are not copied."""
    return copy.deepcopy(model, {id(model.get_submodule(name)): module for name, module in new.items()})


def _unfilled_modules(model: CTRModel, structure: Structure) -> dict[str, nn.Module]:
    """{qualified name: the module that replaces the present one, without values} of the layers in `structure.ranks`."""
    ranks = structure.ranks
    new: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name in ranks:
            new[name] = FactoredLinear.unfilled(module, ranks[name], structure.bottleneck)
        elif isinstance(module, FieldEmbedding):
            by_field = [ranks.get(f"{name}.{field}") for field in module.schema.table_names]
            if any(rank is not None for rank in by_field):
                with torch.random.fork_rng(devices=[]):  # the initial values are overwritten
                    reduced = _reduced(module, by_field, structure)
                new[name] = reduced.to(module.categorical.table.weight).train(module.training)
    return new


def _reduced(old: FieldEmbedding, by_field: list[int | None], structure: Structure) -> nn.Module:
    if structure.basis == "per_field":
        group = method_keeping(structure.table_form).group_class()
        return FactoredEmbedding(old.schema, old.embed_dim, by_field, raw_values=old.raw_values, reduced=group)
    (rank,) = set(by_field)
    return SharedBasisEmbedding(old.schema, old.embed_dim, cast(int, rank), raw_values=old.raw_values)


@torch.no_grad()
def _fill_tables(
    model: CTRModel, name: str, new: nn.Module, spectra: Mapping[str, LayerSpectrum], compressor: Compressor,
    counts: CountsByLayer,
) -> None:  # fmt: skip
    """In place: fill `new` with the reduced tables of the embedding called `name`."""
    old = cast(FieldEmbedding, model.get_submodule(name))
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
    project_rows_(group.weight[group.tables.rows_of(position)], table, factors.encoder, factors.mean)
    group.projection[position].copy_(factors.basis)
    group.mean[position].copy_(factors.mean)


def _check_counts(source: TableSource) -> None:
    if source.counts is not None and len(source.counts) != len(source.weight):
        numbers = f"{len(source.counts)} counts were given for the {len(source.weight)} ids of {source.name}"
        raise CompressionError(f"{numbers}; use those of its training dataset")


def _fill_shared(old: FieldEmbedding, new: SharedBasisEmbedding, basis: Tensor) -> None:
    table = old.categorical.table.weight
    project_rows_(new.latents.categorical.table.weight, table, basis, basis.new_zeros(len(basis)))
    new.latents.numeric.copy_(old.numeric.double() @ basis)
    new.restore.copy_(basis)
