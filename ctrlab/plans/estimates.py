"""The log loss that ranks are expected to cost, from the gradients in the spectra instead of a measurement. Loads without torch.

To second order, for each layer alone (METHOD.md, section 1). A first sensitivity for the planner: no forward pass is needed, and
plans made with it are then measured as a whole.
"""

from collections.abc import Mapping

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError
from ctrlab.models.profile import ModelProfile
from ctrlab.models.structure import Precision
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.methods import METHODS
from ctrlab.plans.ranks import Spectra, pays
from ctrlab.plans.sensitivity import LayerSensitivity, Sensitivity

#: Noise of rounding over variance of a normal variable on the grid of least squared error.
ROUNDING_NOISE: dict[Precision, float] = {"float32": 0.0, "int8": 8e-5, "int4": 0.0115}


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


def rounding_loss(spectrum: LayerSpectrum, rank: int | None, precision: Precision, *, weighted: bool) -> float:
    """Nats that rounding what a rank keeps is expected to cost; `rank` None is dense.

    Rounding a latent with step q adds a variance of q^2 / 12, which is the share `ROUNDING_NOISE` of the latent's own; so the
    estimate is half that share of the `loss_terms` that are kept.

    Raises:
        CompressionError: the spectrum has no gradients.
    """
    terms = spectrum.loss_terms(weighted=weighted)
    if terms is None:
        raise CompressionError(
            f"bits by layer are planned with the gradients of the loss, and the spectrum of {spectrum.layer_name} has none; "
            "collect the spectra again with them"
        )
    bits: Precision = "int8" if spectrum.kind == "linear" and precision == "int4" else precision
    return ROUNDING_NOISE[bits] * float(terms[:rank].sum()) / 2


def has_gradients(profile: ModelProfile, spectra: Mapping[str, LayerSpectrum]) -> bool:
    """Whether every layer that can be compressed has a spectrum with what the loss's gradients say of its ranks."""
    found = (spectra.get(layer.layer_name) for layer in profile.compressible)
    return all(spectrum is not None and spectrum.direction_losses is not None for spectrum in found)
