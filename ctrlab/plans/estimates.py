"""The log loss that ranks are expected to cost, from the gradients in the spectra instead of a measurement. Loads without torch.

To second order, for each layer alone (METHOD.md, section 1). A first sensitivity for the planner: no forward pass is needed, and
plans made with it are then measured as a whole.
"""

from collections.abc import Mapping

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.profile import ModelProfile
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.methods import METHODS
from ctrlab.plans.ranks import Spectra, pays
from ctrlab.plans.sensitivity import LayerSensitivity, Sensitivity


def estimated_sensitivity(
    profile: ModelProfile, spectra: Spectra, spec: CompressionSpec, *, log_loss: float = float("nan"), auc: float = float("nan")
) -> Sensitivity | None:
    """Sensitivity in log loss from the spectra alone; None where a layer's has no gradients.

    Args:
        spec: its method decides which directions a rank keeps.
        log_loss, auc: of the original, if known.
    """
    weighted = METHODS[spec.method].needs_gradients
    if not has_gradients(profile, spectra):
        return None
    layers = {}
    for layer in profile.compressible:
        spectrum = spectra[layer.layer_name]
        ranks = tuple(rank for rank in range(1, layer.out_features) if pays(layer, rank))
        increases = tuple(spectrum.loss_increase(rank, weighted=weighted) or 0.0 for rank in ranks)
        layers[layer.layer_name] = LayerSensitivity(
            layer_name=layer.layer_name, width=layer.out_features, auc_dense=auc, ranks=ranks,
            log_losses=tuple(log_loss + increase for increase in increases), aucs=(), log_loss_increases=increases, auc_losses=(),
        )  # fmt: skip
    return Sensitivity(log_loss=log_loss, auc=auc, split="", num_rows=0, layers=layers)


def has_gradients(profile: ModelProfile, spectra: Mapping[str, LayerSpectrum]) -> bool:
    """Whether every layer that can be compressed has a spectrum with what the loss's gradients say of its ranks."""
    found = (spectra.get(layer.layer_name) for layer in profile.compressible)
    return all(spectrum is not None and spectrum.direction_losses is not None for spectrum in found)
