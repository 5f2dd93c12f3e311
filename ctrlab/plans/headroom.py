"""How much smaller a model can plausibly be, read off its spectra. Loads without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.profile import ModelProfile
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.ranks import pays


@dataclass(frozen=True, kw_only=True)
class Headroom:
    """What is left of a model when every layer keeps the share `variance` of its output variance.

    directions, directions_needed: output directions of all layers and tables with a spectrum, and how many of them are needed.
    parameters, parameters_left: of the serving forms, as it is and truncated; equal where no layer becomes smaller.
    log_loss_rise: sum of the layers' predicted rises of log loss in nats; None where the spectra hold no gradients.
    strongest, strongest_rank, strongest_width: the layer that needs the smallest share of its directions, the widest of equals.
    """

    variance: float
    directions: int
    directions_needed: int
    parameters: int
    parameters_left: int
    log_loss_rise: float | None
    strongest: str
    strongest_rank: int
    strongest_width: int

    @property
    def share(self) -> float:
        """Directions needed, as a share of all."""
        return self.directions_needed / self.directions

    @property
    def times_smaller(self) -> float:
        """Parameters before, divided by those after."""
        return self.parameters / self.parameters_left


def headroom(profile: ModelProfile, spectra: Mapping[str, LayerSpectrum], variance: float = 0.95) -> Headroom | None:
    """The headroom of a model at `variance` (0..1); None where no layer has a spectrum.

    The cost is that of AFM in float32 with a basis for each table. A compressed model keeps its parameters: it is not
    truncated again.
    """
    layers = {layer.layer_name: spectra[layer.layer_name] for layer in profile.compressible if layer.layer_name in spectra}
    if not layers:
        return None
    ranks = {name: spectrum.rank_for(variance) for name, spectrum in layers.items()}
    strongest = min(layers, key=lambda name: (ranks[name] / layers[name].width, -layers[name].width))
    before, after = _parameters(profile, layers, variance)
    rises = [spectrum.loss_increase(ranks[name]) for name, spectrum in layers.items()]
    known = [rise for rise in rises if rise is not None]
    return Headroom(
        variance=variance,
        directions=sum(spectrum.width for spectrum in layers.values()),
        directions_needed=sum(ranks.values()),
        parameters=before,
        parameters_left=after,
        log_loss_rise=sum(known) if len(known) == len(rises) else None,
        strongest=strongest,
        strongest_rank=ranks[strongest],
        strongest_width=layers[strongest].width,
    )


def _parameters(profile: ModelProfile, spectra: Mapping[str, LayerSpectrum], variance: float) -> tuple[int, int]:
    """Parameters of the serving form before and after; the same number twice where truncation saves nothing."""
    if profile.compressed:
        return profile.cost.parameters, profile.cost.parameters
    ranks = {name: spectrum.rank_for(variance) for name, spectrum in spectra.items()}
    plan = RankPlan.of({name: rank for name, rank in ranks.items() if pays(profile.by_name[name], rank)})
    found = predict(profile, None, CompressionSpec(plan=plan))
    before = found.serving_original.parameters
    return before, min(before, found.serving.parameters)
