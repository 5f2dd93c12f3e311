"""Settings that change an architecture's structure keep to the contract of compression too."""

import pytest
import torch

from ctrlab.compression.fold import fold
from ctrlab.compression.surgery import compress_model
from ctrlab.models.cost import measure_cost
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import predict
from tests.support.small_models import logits, make_model, perturb_, random_fields, spectra_of

FIELDS = random_fields(32)
VARIANTS = [
    ("dcnv2", {"structure": "stacked"}),
    ("gdcn", {"structure": "stacked"}),
    ("pnn", {"product": "outer"}),
    ("dlrm", {"numeric_fields": "embedding"}),
    ("finalmlp", {"feature_selection": False}),
    ("finalmlp", {"context1": ("ad", "price"), "context2": ("site",)}),
    ("autoint", {"attention_residual": False}),
    ("autoint_plus", {"attention_dim": 8, "embed_dim": 8}),  # the residual adds the vectors themselves
    ("fibinet", {"bilinear_type": "each"}),
    ("fibinet", {"bilinear_type": "interaction"}),
    ("masknet", {"structure": "serial"}),
    ("din", {"activation": "prelu"}),
]


@pytest.mark.parametrize("basis", ["per_field", "shared"])
@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=lambda value: value if isinstance(value, str) else "-".join(value))
def test_a_variant_folds_and_costs_what_was_predicted(name, settings, basis):
    model = make_model(name, batch_norm=True, **settings)
    ranks = {layer.layer_name: min(3, layer.out_features) for layer in profile_model(model).compressible}
    result = compress_model(model, CompressionSpec.of(ranks, basis=basis), spectra_of(model))
    prediction = predict(profile_model(model), None, CompressionSpec(plan=result.plan, basis=basis))
    assert prediction.cost_original == measure_cost(model)
    assert prediction.cost_explicit == measure_cost(result.model)
    assert prediction.cost_folded == measure_cost(fold(result.model))
    perturb_(result.model, 0.02)
    exact, fields = result.model.double(), FIELDS._replace(values=FIELDS.values.double())
    torch.testing.assert_close(logits(fold(exact), fields), logits(exact, fields), atol=1e-9, rtol=1e-9)
