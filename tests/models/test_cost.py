from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ctrlab.compression.fold import fold
from ctrlab.compression.surgery import compress_model
from ctrlab.models.base import CTRModel
from ctrlab.models.cost import measure_cost
from ctrlab.models.profile import ModelProfile, break_even, table_break_even
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import BOTTLENECKS, CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import predict
from tests.support.small_models import ARCHITECTURES, SCHEMA, make_model, spectra_of

_MODELS = {
    (name, norm, width): make_model(name, batch_norm=norm, embed_dim=width)
    for name in ARCHITECTURES for norm in (False, True) for width in (8, 1)
}  # fmt: skip
_SPECTRA = {key: spectra_of(model) for key, model in _MODELS.items()}


@given(st.sampled_from(list(_MODELS)), st.sampled_from(BOTTLENECKS), st.data())
@settings(max_examples=60, deadline=None)
def test_predicted_cost_equals_that_of_the_compressed_model_and_of_its_serving_form(key, bottleneck, data):
    model, profile = _MODELS[key], profile_model(_MODELS[key])
    chosen = data.draw(st.sets(st.sampled_from(profile.compressible)))
    plan = RankPlan.of({layer.layer_name: data.draw(st.integers(1, layer.out_features)) for layer in chosen})
    prediction = predict(profile, _SPECTRA[key], CompressionSpec(plan=plan, bottleneck=bottleneck))
    result = compress_model(model, CompressionSpec(plan=plan, bottleneck=bottleneck), _SPECTRA[key])
    assert prediction.cost_original == measure_cost(model)
    assert prediction.cost_explicit == measure_cost(result.model)
    assert prediction.cost_folded == measure_cost(fold(result.model))
    assert prediction.cost_original_folded == measure_cost(fold(model))
    assert prediction.ranks == result.plan.as_dict()
    saved = measure_cost(model).parameters - measure_cost(result.model).parameters
    assert sum(row.parameters_before - row.parameters_after for row in result.rows) == saved


def test_a_reader_without_a_rule_keeps_the_projection_and_is_predicted_so():
    class Odd(type(make_model("dcn"))):
        embedding_readers: ClassVar = {"embedding": ("mlp", "cross", "extra")}

    model = make_model("dcn")
    model.__class__ = Odd
    model.extra = nn.Tanh()
    plan = RankPlan.of({"embedding.ad": 2, "mlp.2": 3})
    result = compress_model(model, CompressionSpec(plan=plan), spectra_of(model))
    prediction = predict(profile_model(model), None, CompressionSpec(plan=plan))
    assert prediction.cost_folded == prediction.cost_explicit == measure_cost(result.model) == measure_cost(fold(result.model))


def test_counts_are_those_of_the_closed_forms():
    d, n, ids = 8, SCHEMA.num_fields, sum(SCHEMA.field_dims)
    mlp = (n * d * 32 + 32) + (32 * 24 + 24) + 25
    deepfm = measure_cost(make_model("deepfm"))
    assert (deepfm.parameters_tables, deepfm.parameters_dense) == (ids * (d + 1), 2 * (d + 1) + 1 + mlp)
    assert deepfm.size_bytes == 4 * deepfm.parameters
    assert deepfm.macs == n * d * 32 + 32 * 24 + 24 + 2 * d + 2 + (n + 1) * d
    dcn = measure_cost(make_model("dcn"))
    assert (dcn.parameters_tables, dcn.parameters_dense) == (ids * d, 2 * d + 2 * 3 * n * d + n * d + mlp)
    assert dcn.macs == n * d * 32 + 32 * 24 + 24 + 2 * d + 2 * 3 * n * d + n * d


def test_buffers_that_are_saved_count_as_bytes_and_not_as_parameters():
    plain, normed = measure_cost(make_model("dcn")), measure_cost(make_model("dcn", batch_norm=True))
    assert normed.parameters - plain.parameters == 2 * (32 + 24)
    assert normed.bytes_dense - plain.bytes_dense == 4 * 4 * (32 + 24) + 2 * 8


def test_half_precision_counts_two_bytes_a_parameter():
    model = make_model("deepfm").half()
    assert measure_cost(model).size_bytes == 2 * measure_cost(model).parameters
    assert profile_model(model).element_bytes == 2


def test_a_profile_survives_json():
    profile = profile_model(make_model("deepfm", batch_norm=True))
    assert ModelProfile.from_json(profile.to_json()) == profile


def test_break_even_is_where_the_factored_form_stops_being_smaller():
    assert break_even(400, 400) == 200
    limit = table_break_even(1000, 16)
    for rank in range(1, 17):
        assert (1000 * rank + rank * 16 + 16 < 1000 * 16) == (rank < limit)


def test_an_unknown_module_counts_one_mac_for_each_of_its_parameters():
    model = nn.Sequential(nn.Linear(3, 2), nn.GroupNorm(1, 2))
    assert measure_cost(model).macs == 6 + 4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folded_model_is_profiled_as_compressed(architecture):
    model: CTRModel = fold(make_model(architecture))
    profile = profile_model(model)
    assert profile.compressed and profile.cost == measure_cost(model)
