"""Choosing ranks, and what a choice will cost and lose: exact, without torch and without a forward pass.

`predict` sums the cost of the model that `compress_model` and `fold` would build; a property test holds the two equal. The
variance lost is exact for method "afm" with bottleneck "none" or "prelu" before fine-tuning, on the calibration rows.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ctrlab.compression.configs import Bottleneck, RankPlan
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.evaluation.profile import Cost, LayerProfile, ModelProfile, ReaderProfile, break_even, cheaper

Spectra = Mapping[str, LayerSpectrum]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a plan will do to a model.

    cost_original, cost_original_folded: of the uncompressed model, as it is and in its own serving form.
    cost_explicit: of the trainable form, projections of the tables in place.
    cost_folded: of the serving form.
    ranks: the layers that are factored; kept_dense: planned layers whose rank is at or above break-even, hence left dense.
    variance_lost: share of each compressible layer's output variance that is discarded (0 where dense); empty without spectra.
    variance_lost_total: the mean of `variance_lost` over all compressible layers, so that every layer counts alike whatever
    the scale of its outputs; 0 without spectra.
    """

    cost_original: Cost
    cost_original_folded: Cost
    cost_explicit: Cost
    cost_folded: Cost
    ranks: dict[str, int]
    kept_dense: tuple[str, ...]
    variance_lost: dict[str, float]
    variance_lost_total: float

    @property
    def serving_original(self) -> Cost:
        """What the uncompressed model costs to serve, in the cheaper of its two forms."""
        return cheaper(self.cost_original, self.cost_original_folded)

    @property
    def serving(self) -> Cost:
        """What the compressed model costs to serve, in the cheaper of its two forms."""
        return cheaper(self.cost_explicit, self.cost_folded)


def plan_ranks(
    profile: ModelProfile,
    spectra: Spectra | None = None,
    *,
    energy: float | None = None,
    ranks: Mapping[str, int] | None = None,
    keep_first_dense: bool = False,
) -> RankPlan:
    """A plan by `energy` (share of output variance every layer keeps) or from explicit `ranks`, whichever is given.

    `ranks` may name groups by pattern ("embedding.*", "mlp.*"); an exact name wins over a pattern, a later pattern over an
    earlier one. Layers at or above break-even are left out, for they stay dense. `keep_first_dense` leaves out the linear
    layers that read the embedding.

    Raises:
        CompressionError: neither or both are given, or something in `ranks` does not fit; every fault is listed.
    """
    if (energy is None) == (ranks is None):
        raise CompressionError("a plan is made by energy or by ranks; give exactly one of them")
    chosen = _expand_patterns(profile, ranks or {}) if energy is None else _ranks_by_energy(profile, spectra or {}, energy)
    _validate_ranks(profile, chosen)
    first = first_layers(profile) if keep_first_dense else frozenset()
    kept = {name: rank for name, rank in chosen.items() if name not in first and pays(profile.by_name[name], rank)}
    return RankPlan.of(kept)


def first_layers(profile: ModelProfile) -> frozenset[str]:
    """The linear layers whose input is the embedding; without that knowledge, the first linear layer."""
    known = [reader.first_layer for reader in profile.readers if reader.first_layer]
    linear = [layer.layer_name for layer in profile.compressible if layer.kind == "linear"]
    return frozenset(known or linear[:1])


def pays(layer: LayerProfile, rank: int) -> bool:
    """Whether `rank` makes the layer smaller: strictly below break-even."""
    return rank < layer.break_even


def effective_ranks(profile: ModelProfile, plan: RankPlan) -> dict[str, int]:
    """The ranks of the layers that are really factored under the break-even rule."""
    return {name: rank for name, rank in plan.as_dict().items() if pays(profile.by_name[name], rank)}


def _ranks_by_energy(profile: ModelProfile, spectra: Spectra, energy: float) -> dict[str, int]:
    if not 0 < energy <= 1:
        raise CompressionError(f"energy {energy} must be above 0 and at most 1; 0.95 keeps 95 % of every layer's variance")
    _require_spectra(profile, spectra, [layer.layer_name for layer in profile.compressible])
    return {layer.layer_name: spectra[layer.layer_name].rank_for(energy) for layer in profile.compressible}


def _expand_patterns(profile: ModelProfile, ranks: Mapping[str, int]) -> dict[str, int]:
    """{layer: rank} in the profile's order, then what matched nothing, for validation to name."""
    names = [layer.layer_name for layer in profile.compressible]
    chosen: dict[str, int] = {}
    for pattern, rank in ranks.items():
        chosen.update({name: rank for name in names if fnmatchcase(name, pattern)})
    chosen.update({name: rank for name, rank in ranks.items() if name in names})
    unmatched = {
        pattern: rank for pattern, rank in ranks.items() if not any(fnmatchcase(name, pattern) for name in (*names, *chosen))
    }
    return {name: chosen[name] for name in names if name in chosen} | unmatched


def validate_plan(profile: ModelProfile, plan: RankPlan) -> None:
    """Refuse a plan that does not fit the model, listing every fault at once with the layer and its bounds."""
    _validate_ranks(profile, plan.as_dict())


def _validate_ranks(profile: ModelProfile, ranks: Mapping[str, int]) -> None:
    faults = [fault for name, rank in ranks.items() if (fault := _fault(profile, name, rank))]
    if faults:
        raise CompressionError("the plan does not fit the model: " + "; ".join(faults))


def _fault(profile: ModelProfile, name: str, rank: int) -> str | None:
    layer = profile.by_name.get(name)
    if layer is None:
        known = [layer.layer_name for layer in profile.compressible]
        near = get_close_matches(name, known, n=3, cutoff=0.3) or known[:3]
        return f"no layer is called {name}; nearest are {', '.join(near)}"
    if layer.skip_reason is not None:
        return f"layer {name} cannot be compressed ({layer.skip_reason}); leave it out"
    if not 1 <= rank <= layer.out_features:
        return f"rank {rank} for layer {name} must be between 1 and {layer.out_features}"
    return None


def spectrum_faults(
    profile: ModelProfile, spectra: Spectra, names: Iterable[str], *, with_eigenvectors: bool = False
) -> list[str]:
    """What keeps `spectra` from serving the layers `names`: missing, of another width, or without the eigenvectors asked for."""
    faults = []
    for name in names:
        width = profile.by_name[name].out_features
        if name not in spectra:
            faults.append(f"layer {name} has no spectrum")
        elif spectra[name].width != width:
            faults.append(f"the spectrum of layer {name} is {spectra[name].width} wide and the layer {width}")
        elif with_eigenvectors and spectra[name].eigenvectors is None:
            faults.append(f"the spectrum of layer {name} was loaded without eigenvectors")
    return faults


def _require_spectra(profile: ModelProfile, spectra: Spectra, names: Iterable[str]) -> None:
    if faults := spectrum_faults(profile, spectra, names):
        raise CompressionError("; ".join(faults) + "; collect the spectra of this model first")


def predict(profile: ModelProfile, spectra: Spectra | None, plan: RankPlan, bottleneck: Bottleneck = "none") -> Prediction:
    """Cost and error of `plan` before anything is built.

    Raises:
        CompressionError: the plan does not fit the model, the model is compressed already, or a planned layer has no spectrum
            though spectra are given.
    """
    if profile.compressed:
        raise CompressionError("the model is compressed already; predict from its original")
    validate_plan(profile, plan)
    ranks = effective_ranks(profile, plan)
    if spectra:
        _require_spectra(profile, spectra, list(ranks))
    lost = {
        layer.layer_name: spectra[layer.layer_name].variance_lost(ranks[layer.layer_name]) if layer.layer_name in ranks else 0.0
        for layer in profile.compressible
    } if spectra else {}  # fmt: skip
    return Prediction(
        cost_original=profile.cost,
        cost_original_folded=_folded_cost(profile, {}, bottleneck),
        cost_explicit=_explicit_cost(profile, ranks, bottleneck),
        cost_folded=_folded_cost(profile, ranks, bottleneck),
        ranks=ranks,
        kept_dense=tuple(name for name in plan.as_dict() if name not in ranks),
        variance_lost=lost,
        variance_lost_total=sum(lost.values()) / len(lost) if lost else 0.0,
    )


def activation_parameters(bottleneck: Bottleneck, rank: int) -> int:
    """Parameters of the nonlinearity between two factors: a slope a direction for prelu, none otherwise."""
    return rank if bottleneck == "prelu" else 0


def _cost(profile: ModelProfile, tables: int, dense: int, macs: int) -> Cost:
    size = profile.element_bytes
    return Cost(
        parameters_tables=tables, parameters_dense=dense, bytes_tables=size * tables, bytes_dense=size * dense, macs=macs
    )  # fmt: skip


def _layer_cost(profile: ModelProfile, layer: LayerProfile, rank: int | None, bottleneck: Bottleneck) -> Cost:
    """Of one layer in the trainable form; `rank` None leaves it dense."""
    if rank is not None:
        return _cost(profile, *layer.factored(rank, activation_parameters(bottleneck, rank)))
    if layer.kind == "embedding":
        return _cost(profile, layer.parameters, 0, 0)
    return _cost(profile, 0, layer.parameters, layer.in_features * layer.out_features * layer.row_uses)


def _explicit_cost(profile: ModelProfile, ranks: Mapping[str, int], bottleneck: Bottleneck) -> Cost:
    cost = profile.cost
    for name, rank in ranks.items():
        layer = profile.by_name[name]
        cost = cost - _layer_cost(profile, layer, None, bottleneck) + _layer_cost(profile, layer, rank, bottleneck)
    return cost


def _folded_cost(profile: ModelProfile, ranks: Mapping[str, int], bottleneck: Bottleneck) -> Cost:
    """fixed part + linear layers + latent tables + readers of S latents (see ReaderProfile)."""
    read = {reader.first_layer for reader in profile.readers}
    cost = profile.folded_fixed
    latent_width = profile.num_values
    for layer in profile.layers:
        rank = ranks.get(layer.layer_name)
        if layer.kind == "embedding" and profile.foldable:
            width = rank or layer.out_features
            latent_width += width
            cost += _cost(profile, layer.in_features * width, 0, 0)
        elif layer.kind == "embedding" or (layer.kind == "linear" and layer.compressible and layer.layer_name not in read):
            cost += _layer_cost(profile, layer, rank, bottleneck)
    for reader in profile.readers:
        cost += _reader_cost(profile, reader, latent_width, ranks, bottleneck)
    return cost


def _reader_cost(
    profile: ModelProfile, reader: ReaderProfile, latents: int, ranks: Mapping[str, int], bottleneck: Bottleneck
) -> Cost:
    dense = reader.parameters_base + reader.parameters_slope * latents
    macs = reader.macs_base + reader.macs_slope * latents
    if reader.first_layer is not None:
        out = profile.by_name[reader.first_layer].out_features
        rank = ranks.get(reader.first_layer)
        if rank is None or (bottleneck == "none" and merges(latents, out, rank)):
            dense, macs = dense + latents * out + out, macs + latents * out
        else:
            products = rank * (latents + out)
            dense, macs = dense + products + rank + out + activation_parameters(bottleneck, rank), macs + products
    return _cost(profile, 0, dense, macs)


def merges(latents: int, out_features: int, rank: int) -> bool:
    """Whether two factors that read `latents` features are better multiplied into one layer in the serving form."""
    return rank >= break_even(latents, out_features)


@dataclass(frozen=True)
class Preset:
    """A named way to choose all ranks at once."""

    title: str
    description: str
    make: Callable[[ModelProfile, Spectra | None], RankPlan]


def _energy_preset(percent: int) -> Preset:
    return Preset(
        f"Energy {percent} %",
        f"Every layer and table keeps {percent} % of its output variance.",
        lambda profile, spectra: plan_ranks(profile, spectra, energy=percent / 100),
    )


def _paper_plan(profile: ModelProfile, table_share: float) -> RankPlan:
    """First MLP layer dense, hidden layers at 16 % of their width in multiples of 8, tables at `table_share` of theirs."""
    ranks = {
        layer.layer_name: max(1, round(table_share * layer.out_features))
        if layer.kind == "embedding"
        else min(layer.out_features, max(8, 8 * round(0.16 * layer.out_features / 8)))
        for layer in profile.compressible
    }
    return plan_ranks(profile, ranks=ranks, keep_first_dense=True)


#: By the name that links and the command line use.
PRESETS: dict[str, Preset] = {
    "energy-90": _energy_preset(90),
    "energy-95": _energy_preset(95),
    "energy-99": _energy_preset(99),
    "paper-criteo": Preset(
        "Paper, Criteo",
        "Tables to an eighth (16 to 2), first MLP layer dense, the others to 16 % (400 to 64).",
        lambda profile, _: _paper_plan(profile, 2 / 16),
    ),
    "paper-avazu": Preset(
        "Paper, Avazu",
        "Tables to 16 % (50 to 8), first MLP layer dense, the others to 16 % (2000 to 320).",
        lambda profile, _: _paper_plan(profile, 8 / 50),
    ),
}


def preset_plan(name: str, profile: ModelProfile, spectra: Spectra | None = None) -> RankPlan:
    """The plan of the preset called `name`."""
    if name not in PRESETS:
        raise CompressionError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name].make(profile, spectra)
