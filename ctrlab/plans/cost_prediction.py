"""Predicted cost and error of a compression: exact, without torch and without a forward pass.

`predict` sums the cost of the model that `compress_model`, `fold` and `quantize` would build; a property test holds the two
equal. The variance lost is exact for method "afm" with bottleneck "none" or "prelu" before fine-tuning, on calibration rows.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ctrlab.errors import CompressionError
from ctrlab.models.profile import Cost, ModelProfile, cheaper
from ctrlab.models.structure import Basis
from ctrlab.plans import methods
from ctrlab.plans.configs import UNCOMPRESSED, CompressionSpec
from ctrlab.plans.methods import Method
from ctrlab.plans.ranks import Spectra, effective_ranks, require_spectra, validate_plan, validate_precisions
from ctrlab.plans.serving_forms import ServingForms, tables_of
from ctrlab.plans.shared_basis import shared_variance_lost


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted cost and error of a compression.

    cost_original, cost_original_folded: of the uncompressed model, as it is and in its own serving form.
    cost_explicit: of the trainable form, projections of the tables in place.
    cost_folded: of the serving form.
    served_explicit, served_folded: of these two at the precision of the spec; equal to them for float32.
    ranks: the layers that are factored; kept_dense: planned layers whose rank is at or above break-even, hence left dense.
    variance_lost: share of each compressible layer's output variance that is discarded (0 where dense); empty without spectra and
        for methods that do not project outputs, of which the spectra say nothing,
        and without the tables that are reduced to something else than latents.
    method: decides what reduced tables are kept as, and their size.
    variance_lost_total: the mean of `variance_lost` over all compressible layers, so that every layer counts alike whatever
    the scale of its outputs; 0 without spectra.
    """

    cost_original: Cost
    cost_original_folded: Cost
    cost_explicit: Cost
    cost_folded: Cost
    served_explicit: Cost
    served_folded: Cost
    ranks: dict[str, int]
    kept_dense: tuple[str, ...]
    variance_lost: dict[str, float]
    variance_lost_total: float
    method: Method = methods.AFM

    @property
    def serving_original(self) -> Cost:
        """Serving cost of the uncompressed model in float32, in the cheaper of its two forms."""
        return cheaper(self.cost_original, self.cost_original_folded)

    @property
    def serving(self) -> Cost:
        """Serving cost of the compressed, quantised model, in the cheaper of its two forms; precision does not change which."""
        return cheaper(self.served_explicit, self.served_folded)


def predict(
    profile: ModelProfile,
    spectra: Spectra | None,
    spec: CompressionSpec,
) -> Prediction:
    """Cost and error of a compression before anything is built.

    In a shared basis the spectra of the tables must have their eigenvectors, and numeric fields' vectors are reduced as well.
    An empty plan with a precision below float32 is the model quantised and nothing else. What the method keeps reduced tables
    as decides their size; all methods factor linear layers alike.

    Raises:
        CompressionError: the plan does not fit the model, the model is compressed already, or a planned layer has no spectrum
            though spectra are given.
    """
    if profile.compressed:
        raise CompressionError("the model is compressed already; predict from its original")
    validate_plan(profile, spec.plan)
    validate_precisions(profile, spec)
    ranks = effective_ranks(profile, spec)
    if spectra:
        require_spectra(profile, spectra, list(ranks))
    served = ServingForms.of(profile, ranks, spec)
    forms = served.in_float32()
    lost = _variance_lost(profile, spectra, ranks, spec.basis) if spectra and forms.method.projects_outputs else {}
    if not forms.method.keeps_latents:
        reduced = {layer.layer_name for embedding in profile.embeddings for layer in tables_of(profile, embedding, ranks)}
        lost = {name: share for name, share in lost.items() if name not in reduced}
    return Prediction(
        cost_original=profile.cost,
        cost_original_folded=dataclasses.replace(forms, ranks={}).folded(),
        cost_explicit=forms.explicit(),
        cost_folded=forms.folded(),
        served_explicit=served.explicit(),
        served_folded=served.folded(),
        ranks=ranks,
        kept_dense=tuple(name for name in spec.plan.as_dict() if name not in ranks),
        variance_lost=lost,
        variance_lost_total=sum(lost.values()) / len(lost) if lost else 0.0,
        method=forms.method,
    )


def serving_cost(profile: ModelProfile, ranks: Mapping[str, int], spec: CompressionSpec = UNCOMPRESSED) -> Cost:
    """`predict(...).serving` for {layer_name: rank} that are known to fit and to pay; unchecked, hence fast.

    Args:
        spec: everything but the ranks; its own plan is not read.
    """
    return ServingForms.of(profile, ranks, spec).cheaper()


def _variance_lost(profile: ModelProfile, spectra: Spectra, ranks: Mapping[str, int], basis: Basis) -> dict[str, float]:
    """{compressible layer: share of its output variance discarded}."""
    lost = {
        layer.layer_name: spectra[layer.layer_name].variance_lost(ranks[layer.layer_name]) if layer.layer_name in ranks else 0.0
        for layer in profile.compressible
    }
    if basis == "shared":
        for embedding in profile.embeddings:
            tables = tables_of(profile, embedding, ranks)
            if tables:
                own = [spectra[layer.layer_name] for layer in tables]
                lost |= shared_variance_lost(own, ranks[tables[0].layer_name])
    return lost
