"""A compression method in a package of its own: one class, one record."""

import torch

from ctrlab.compression.factors import LinearFactors, TableFactors
from ctrlab.compression.surgery import compress_model
from ctrlab.config import choices_of
from ctrlab.models.cost import measure_cost
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressConfig, CompressionSpec
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.methods import METHODS, Method
from tests.support.small_models import make_model


class FirstOutputs:
    """Keeps the first `rank` outputs of a layer or coordinates of a table, and sets the others to zero."""

    def linear_factors(self, weight, bias, spectrum, rank):
        basis = torch.eye(len(weight), rank, dtype=weight.dtype)
        return LinearFactors(basis.T @ weight, basis.T @ bias, basis, torch.zeros_like(bias))

    def table_factors(self, table, spectrum, rank):
        basis = torch.eye(table.shape[1], rank, dtype=torch.float64)
        return TableFactors(basis, torch.zeros(len(basis), dtype=torch.float64))


FIRST = Method(
    name="first", title="First outputs", description="", implementation=f"{__name__}:FirstOutputs", needs_spectra=False
)


def test_it_is_offered_predicted_and_compresses(request):
    METHODS.add(FIRST)
    request.addfinalizer(lambda: METHODS.remove("first"))
    assert choices_of(CompressConfig, "method")["first"] == "First outputs"
    model, spec = make_model("deepfm"), CompressionSpec.of({"mlp.0": 5, "embedding.ad": 3}, method="first")
    result = compress_model(model, spec)
    assert measure_cost(result.model) == predict(profile_model(model), None, spec).cost_explicit
