"""Choosing ranks: by variance, by name or by a preset; without torch."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.models.profile import LayerProfile, ModelProfile
from ctrlab.plans.configs import CompressionSpec, RankPlan

Spectra = Mapping[str, LayerSpectrum]


def plan_ranks(
    profile: ModelProfile,
    spectra: Spectra | None = None,
    *,
    variance: float | None = None,
    ranks: Mapping[str, int] | None = None,
    keep_first_dense: bool = False,
) -> RankPlan:
    """A plan by `variance` (share of output variance every layer keeps) or from explicit `ranks`, whichever is given.

    `ranks` may name groups by pattern ("embedding.*", "mlp.*"); an exact name wins over a pattern, a later pattern over an
    earlier one. Layers at or above break-even are left out, for they stay dense. `keep_first_dense` leaves out the linear
    layers that read the embedding.

    Raises:
        CompressionError: neither or both are given, or something in `ranks` does not fit; every fault is listed.
    """
    if (variance is None) == (ranks is None):
        raise CompressionError("a plan is made by variance or by ranks; give exactly one of them")
    chosen = _expand_patterns(profile, ranks or {}) if variance is None else _ranks_by_variance(profile, spectra or {}, variance)
    _validate_ranks(profile, chosen)
    first = first_layers(profile) if keep_first_dense else frozenset()
    kept = {name: rank for name, rank in chosen.items() if name not in first and pays(profile.by_name[name], rank)}
    return RankPlan.of(kept)


def first_layers(profile: ModelProfile) -> frozenset[str]:
    """The linear layers whose input is the embedding; the first linear layer where the readers are unknown."""
    known = [name for reader in profile.readers if not reader.by_field for name in reader.first_layers]
    linear = [layer.layer_name for layer in profile.compressible if layer.kind == "linear"]
    return frozenset(known or linear[:1])


def pays(layer: LayerProfile, rank: int) -> bool:
    """Whether `rank` makes the layer smaller: strictly below break-even."""
    return rank < layer.break_even


def effective_ranks(profile: ModelProfile, spec: CompressionSpec, *, respect_break_even: bool = True) -> dict[str, int]:
    """{layer_name: rank} of the layers that are factored; layers at or above break-even are left out if `respect_break_even`.

    A shared basis has one rank: every table of an embedding gets the largest that the plan gives any of them.
    """
    asked = spec.plan.as_dict()
    if spec.basis == "shared":
        return _with_one_rank_per_embedding(profile, asked, respect_break_even)
    return {name: rank for name, rank in asked.items() if not respect_break_even or pays(profile.by_name[name], rank)}


def _with_one_rank_per_embedding(profile: ModelProfile, asked: Mapping[str, int], respect_break_even: bool) -> dict[str, int]:
    ranks = {}
    for layer in profile.compressible:
        if layer.kind == "linear":
            if layer.layer_name in asked and (not respect_break_even or pays(layer, asked[layer.layer_name])):
                ranks[layer.layer_name] = asked[layer.layer_name]
            continue
        siblings = (asked[other.layer_name] for other in profile.compressible
                    if other.embedding == layer.embedding and other.layer_name in asked)  # fmt: skip
        rank = max(siblings, default=None)
        if rank is not None and (rank < layer.out_features or not respect_break_even):
            ranks[layer.layer_name] = rank
    return ranks


def _ranks_by_variance(profile: ModelProfile, spectra: Spectra, variance: float) -> dict[str, int]:
    if not 0 < variance <= 1:
        raise CompressionError(f"variance {variance} must be above 0 and at most 1; 0.95 keeps 95 % of every layer's variance")
    require_spectra(profile, spectra, [layer.layer_name for layer in profile.compressible])
    return {layer.layer_name: spectra[layer.layer_name].rank_for(variance) for layer in profile.compressible}


def _expand_patterns(profile: ModelProfile, ranks: Mapping[str, int]) -> dict[str, int]:
    """{layer: rank} in the profile's order, followed by patterns that matched nothing, which validation reports."""
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


def validate_precisions(profile: ModelProfile, spec: CompressionSpec) -> None:
    """Refuse bits of layers that the model does not have or that are no layer of their own, naming each."""
    known = {layer.layer_name for layer in profile.compressible}
    if unknown := [name for name in spec.precisions_by_layer if name not in known]:
        raise CompressionError(
            f"no bits can be given to {', '.join(unknown)}; layers with bits of their own are {', '.join(known)}"
        )


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
    profile: ModelProfile,
    spectra: Spectra,
    names: Iterable[str],
    *,
    with_eigenvectors: bool = False,
    with_gradients: bool = False,
) -> list[str]:
    """Faults of `spectra` for the layers `names`: missing, of another width, without eigenvectors or gradients of the loss."""
    faults = []
    for name in names:
        width = profile.by_name[name].out_features
        if name not in spectra:
            faults.append(f"layer {name} has no spectrum")
        elif spectra[name].width != width:
            faults.append(f"the spectrum of layer {name} is {spectra[name].width} wide and the layer {width}")
        elif with_eigenvectors and spectra[name].eigenvectors is None:
            faults.append(f"the spectrum of layer {name} was loaded without eigenvectors")
        elif with_gradients and spectra[name].gradients is None:
            faults.append(f"the spectrum of layer {name} has no gradients of the loss")
    return faults


def require_spectra(profile: ModelProfile, spectra: Spectra, names: Iterable[str]) -> None:
    """Raise CompressionError with every fault of `spectra` for the layers `names`."""
    if faults := spectrum_faults(profile, spectra, names):
        raise CompressionError("; ".join(faults) + "; collect the spectra of this model first")


@dataclass(frozen=True)
class Preset:
    """A named way to choose all ranks at once."""

    title: str
    description: str
    make: Callable[[ModelProfile, Spectra | None], RankPlan]


def _variance_preset(percent: int) -> Preset:
    return Preset(
        f"Variance {percent} %",
        f"Every layer and table keeps {percent} % of its output variance.",
        lambda profile, spectra: plan_ranks(profile, spectra, variance=percent / 100),
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
    "variance-90": _variance_preset(90),
    "variance-95": _variance_preset(95),
    "variance-99": _variance_preset(99),
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
