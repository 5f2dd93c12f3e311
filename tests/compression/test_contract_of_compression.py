"""What compression must keep to for every registered model: a new architecture is held to all of it by being registered."""

import pytest
import torch
from torch import nn

from ctrlab.compression.fold import fold, serving_form
from ctrlab.compression.surgery import compress_model
from ctrlab.data.schema import FeatureSchema, ListFeature
from ctrlab.models.base import build_model
from ctrlab.models.checkpoint import load_model, save_model
from ctrlab.models.configs import MODELS
from ctrlab.models.cost import measure_cost
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import predict
from tests.support.onnx import assert_onnx_agrees
from tests.support.small_models import SCHEMA, MemoryDataset, logits, make_model, perturb_, random_fields, spectra_of, varied

pytestmark = pytest.mark.parametrize("name", MODELS.names())
NUMERIC, BASES = ("embedding", "raw"), ("per_field", "shared")
#: Of `varied` settings: each architecture meets both values of each, not their whole product.
NUMBER = pytest.mark.parametrize("number", [0, 1])
FIELDS = random_fields(64)


def make(name, numeric="embedding"):
    return make_model(name, batch_norm=True, numeric_fields=numeric)


def compressed(name, numeric="embedding", rank=3, basis="per_field"):
    """The model with every layer and table that can shrink at `rank`, after some fine-tuning has moved all parameters."""
    model = make(name, numeric)
    ranks = {layer.layer_name: min(rank, layer.out_features) for layer in profile_model(model).compressible}
    result = compress_model(model, CompressionSpec.of(ranks, basis=basis), spectra_of(model))
    perturb_(result.model, 0.02)
    return model, result


def test_spectra_reach_every_affine_layer_and_table(name):
    model = make(name)
    spectra, layers = spectra_of(model), profile_model(model).layers
    assert set(spectra) == {layer.layer_name for layer in layers if layer.compressible}
    for module_name, module in model.named_modules():
        if isinstance(module, nn.Linear) and min(module.in_features, module.out_features) > 1:
            assert module_name in spectra
    assert all(layer.compressible or layer.skip_reason for layer in layers)


@NUMBER
def test_compression_to_full_rank_changes_nothing(name, number):
    numeric, basis, method = varied(name, number, NUMERIC, BASES, ("afm", "weighted_afm"))
    model = make(name, numeric)
    full = {layer.layer_name: layer.out_features for layer in profile_model(model).compressible}
    # float64, for AFN's logarithms of numbers near zero blow up the rounding of float32
    spectra, model, fields = (
        spectra_of(model, loss_gradients=True),
        model.double(),
        FIELDS._replace(values=FIELDS.values.double()),
    )
    result = compress_model(model, CompressionSpec.of(full, basis=basis, method=method), spectra, respect_break_even=False)
    torch.testing.assert_close(logits(result.model, fields), logits(model, fields), atol=1e-5, rtol=1e-5)
    assert result.plan.as_dict() == full


@NUMBER
def test_the_folded_model_equals_the_explicit_one(name, number):
    numeric, basis = varied(name, number, NUMERIC, BASES)
    _, result = compressed(name, numeric, basis=basis)
    exact = result.model.double()
    fields = FIELDS._replace(values=FIELDS.values.double())
    torch.testing.assert_close(logits(fold(exact), fields), logits(exact, fields), atol=1e-9, rtol=1e-9)


def test_an_uncompressed_model_folds_to_itself(name):
    model = make(name)
    torch.testing.assert_close(logits(fold(model), FIELDS), logits(model, FIELDS), atol=1e-5, rtol=1e-5)


@NUMBER
def test_the_predicted_cost_is_the_cost_of_what_is_built(name, number):
    numeric, basis, rank = varied(name, number, NUMERIC, BASES, (1, 3))
    model, result = compressed(name, numeric, rank, basis)
    prediction = predict(profile_model(model), None, CompressionSpec(plan=result.plan, basis=basis))
    assert prediction.cost_original == measure_cost(model)
    assert prediction.cost_explicit == measure_cost(result.model)
    assert prediction.cost_folded == measure_cost(fold(result.model))


def test_a_compressed_checkpoint_loads_without_the_original(name, tmp_path):
    original, result = compressed(name)
    for form in (result.model, fold(result.model), fold(original), fold(compressed(name, basis="shared")[1].model)):
        save_model(form, tmp_path / "model.safetensors")
        loaded = load_model(tmp_path / "model.safetensors", SCHEMA)
        assert torch.equal(logits(loaded, FIELDS), logits(form.eval(), FIELDS))


def test_the_serving_form_runs_in_onnx_runtime(name):
    original, result = compressed(name)
    explicit, shared = result.model, compressed(name, basis="shared")[1].model
    for form in (serving_form(original), explicit, fold(explicit), fold(shared)):
        assert_onnx_agrees(form.eval(), FIELDS)


def test_the_serving_form_of_a_default_model_runs_in_onnx_runtime(name):
    """With and without numeric fields, by architecture: small models of each run with both in the contract of the models."""
    with_numbers = MODELS.names().index(name) % 2 == 0
    clicked = ListFeature(name="clicked", length=4, shares="c")
    ids_only = FeatureSchema(field_names=("a", "b", "c"), field_dims=(5, 9, 20), lists=(clicked,), fingerprint="ids only")
    schema = SCHEMA if with_numbers else ids_only
    torch.manual_seed(0)
    model = build_model(MODELS[name].config_class(), schema)
    for form in (serving_form(model), fold(model)):
        assert_onnx_agrees(form.eval(), random_fields(64, schema=schema), rtol=1e-5)  # a fresh AFN's logits reach a thousand


def test_a_compressed_model_is_trainable(name):
    _, result = compressed(name)
    model = result.model.train()
    model(MemoryDataset().fields()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.numel())
