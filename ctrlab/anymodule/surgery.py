"""`compress`: any module with low-rank layers and tables in place of its own."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import nn

from ctrlab.anymodule.inventory import Filter, Layer, find_layers, profile_of, unwrapped
from ctrlab.anymodule.spectra import collect
from ctrlab.anymodule.tables import FactoredBag, FactoredTable
from ctrlab.compression.afm import AFM
from ctrlab.compression.configs import Bottleneck, RankPlan
from ctrlab.compression.linear import FactoredLinear, bias_or_zeros, set_linear_
from ctrlab.compression.plan import plan_ranks, spectrum_faults
from ctrlab.compression.surgery import CompressedLayer, layer_rows, project_rows_, skipped_layers
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.evaluation.profile import ModelProfile


@dataclass(frozen=True, eq=False, kw_only=True)
class CompressionResult:
    """The compressed module and what was done to get it.

    plan: the ranks really applied.
    rows: every layer and table that could be compressed: name, kind, rank (None where it stayed dense), parameters before
        and after.
    skipped: {name: reason} for everything else with a matrix in it, and for layers that would not shrink.
    """

    model: nn.Module
    plan: RankPlan
    rows: tuple[CompressedLayer, ...]
    skipped: dict[str, str]


def compress(
    module: nn.Module,
    batches: Iterable[Any] | None,
    *,
    energy: float | None = None,
    ranks: Mapping[str, int] | None = None,
    spectra: Mapping[str, LayerSpectrum] | None = None,
    filter_fn: Filter | None = None,
    bottleneck: Bottleneck = "none",
) -> CompressionResult:
    """A copy of `module` with low-rank layers and tables by AFM (arXiv 2405.18146); `module` itself is not changed.

    Layers at or above break-even stay dense. A module that is used in several places is one layer and is replaced in all.

    Args:
        module: wrappers of `torch.compile`, DataParallel and DistributedDataParallel are looked through.
        batches: calibration, each what the module takes; may be None where `spectra` are given.
        energy: share of output variance that every layer and table keeps; or
        ranks: by layer name; patterns such as "mlp.*" too.
        spectra: of this module, from an earlier `ctrlab.spectra`.
        filter_fn: filter_fn(name, module) selects layers; by default all.
        bottleneck: between the factors of linear layers: "none", "relu" or "prelu".

    Raises:
        CompressionError: neither or both of `energy` and `ranks`, or a plan or spectra that do not fit the module.
        SpectrumError: a layer's output is not finite.
    """
    module = unwrapped(module)
    layers, skipped = find_layers(module, filter_fn)
    if spectra is None:
        if batches is None:
            raise CompressionError("there are neither batches nor spectra; give calibration batches, or the module's spectra")
        spectra = collect(module, batches, filter_fn)
    seen = [layer if layer.skip_reason is not None or layer.layer_name in spectra else _unseen(layer) for layer in layers]
    profile = profile_of(seen)
    plan = plan_ranks(profile, spectra, energy=energy, ranks=ranks)
    chosen = plan.as_dict()
    if faults := spectrum_faults(profile, spectra, chosen, with_eigenvectors=True):
        raise CompressionError("; ".join(faults) + "; collect the spectra of this module")
    replaced = [layer for layer in seen if layer.layer_name in chosen]
    model = copy.deepcopy(module, {id(layer.module): layer.module for layer in replaced})
    for layer in replaced:
        new = _factored(layer, chosen[layer.layer_name], spectra[layer.layer_name], bottleneck)
        for slot in layer.slots:
            model.set_submodule(slot, new)
    asked = RankPlan.of(_asked(profile, spectra, energy, ranks or {}))
    return CompressionResult(
        model=model, plan=plan, rows=layer_rows(profile, chosen, bottleneck),
        skipped=skipped | skipped_layers(profile, asked, chosen),
    )  # fmt: skip


def _unseen(layer: Layer) -> Layer:
    reason = "it did not run on these batches, or weighs its rows by sample"
    return Layer(**{**vars(layer), "skip_reason": reason})


def _asked(
    profile: ModelProfile, spectra: Mapping[str, LayerSpectrum], energy: float | None, ranks: Mapping[str, int]
) -> dict[str, int]:
    """The ranks before the break-even rule."""
    names = [layer.layer_name for layer in profile.compressible]
    if energy is not None:
        return {name: spectra[name].rank_for(energy) for name in names}
    asked = {name: rank for pattern, rank in ranks.items() for name in names if fnmatchcase(name, pattern)}
    return asked | {name: rank for name, rank in ranks.items() if name in names}


@torch.no_grad()
def _factored(layer: Layer, rank: int, spectrum: LayerSpectrum, bottleneck: Bottleneck) -> nn.Module:
    """What takes the layer's place: same call, type, device, mode, and gradients where it had them."""
    old = layer.module
    with torch.random.fork_rng(devices=[]):  # new modules draw initial values, which are overwritten
        new = (
            _factored_linear(old, rank, spectrum, bottleneck)
            if isinstance(old, nn.Linear)
            else _factored_table(old, rank, spectrum)
        )
    wanted = cast("nn.Parameter", old.weight).requires_grad
    return new.requires_grad_(wanted).train(old.training)


def _factored_linear(old: nn.Linear, rank: int, spectrum: LayerSpectrum, bottleneck: Bottleneck) -> nn.Module:
    new = FactoredLinear(old.in_features, rank, old.out_features, bottleneck).to(old.weight)
    factors = AFM().linear_factors(old.weight.double(), bias_or_zeros(old).double(), spectrum, rank)
    set_linear_(new.reduce, factors.reduce_weight, factors.reduce_bias)
    set_linear_(new.restore, factors.restore_weight, factors.restore_bias)
    return new


def _factored_table(old: nn.Module, rank: int, spectrum: LayerSpectrum) -> nn.Module:
    assert isinstance(old, (nn.Embedding, nn.EmbeddingBag))
    new = FactoredBag(old, rank) if isinstance(old, nn.EmbeddingBag) else FactoredTable(old, rank)
    basis, mean = AFM().table_factors(old.weight, spectrum, rank)
    project_rows_(new.weight, old.weight, basis, mean)
    new.projection.copy_(basis)
    new.mean.copy_(mean)
    if new.padding_idx is not None:
        new.weight[new.padding_idx] = 0
    return new
