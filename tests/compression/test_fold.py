from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ctrlab.compression.embedding import FoldedEmbedding
from ctrlab.compression.fold import fold
from ctrlab.compression.linear import FactoredLinear
from ctrlab.compression.readers.cross import FoldedCross
from ctrlab.compression.readers.fm import FoldedFM
from ctrlab.compression.surgery import compress_model
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import BOTTLENECKS, CompressionSpec, RankPlan
from tests.support.onnx import run_onnx
from tests.support.small_models import ARCHITECTURES, logits, make_model, perturb_, random_fields, spectra_of

FIELDS = random_fields(300)
_MODELS = {(name, norm): make_model(name, batch_norm=norm) for name in ARCHITECTURES for norm in (False, True)}
_SPECTRA = {key: spectra_of(model) for key, model in _MODELS.items()}


def _tables(rank):
    return {f"embedding.{name}": rank for name in ("site", "device", "ad")}


@given(st.sampled_from(list(_MODELS)), st.sampled_from(BOTTLENECKS), st.integers(0, 1000), st.data())
@settings(max_examples=40, deadline=None)
def test_folded_equals_explicit_after_every_parameter_has_moved(key, bottleneck, seed, data):
    profile = profile_model(_MODELS[key])
    chosen = data.draw(st.sets(st.sampled_from(profile.compressible)))
    plan = RankPlan.of({layer.layer_name: data.draw(st.integers(1, layer.out_features)) for layer in chosen})
    model = compress_model(_MODELS[key], CompressionSpec(plan=plan, bottleneck=bottleneck), _SPECTRA[key]).model
    perturb_(model, 0.1, seed)
    torch.testing.assert_close(logits(fold(model), FIELDS), logits(model, FIELDS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", _MODELS)
def test_folding_an_uncompressed_model_keeps_its_logits(key):
    model = _MODELS[key]
    folded = fold(model)
    torch.testing.assert_close(logits(folded, FIELDS), logits(model, FIELDS), rtol=1e-5, atol=1e-5)
    assert folded.mlp[0].in_features == 3 * 8 + 2, "numeric fields become one number each"


def test_folding_is_exact_in_double_precision():
    model = compress_model(_MODELS["deepfm", True], CompressionSpec.of(_tables(2)), _SPECTRA["deepfm", True]).model.double()
    perturb_(model, 0.3)
    fields = FIELDS._replace(values=FIELDS.values.double())
    torch.testing.assert_close(logits(fold(model), fields), logits(model, fields), rtol=1e-11, atol=1e-11)


def test_no_projection_is_left_and_every_reader_takes_the_latents():
    deepfm = fold(compress_model(_MODELS["deepfm", False], CompressionSpec.of(_tables(2)), _SPECTRA["deepfm", False]).model)
    dcn = fold(compress_model(_MODELS["dcn", False], CompressionSpec.of(_tables(2)), _SPECTRA["dcn", False]).model)
    for model in (deepfm, dcn):
        assert isinstance(model.embedding, FoldedEmbedding) and model.embedding.latent_width == 3 * 2 + 2
        assert model.mlp[0].in_features == 8 and len(model.embedding.groups) == 1
    assert isinstance(deepfm.fm, FoldedFM) and isinstance(dcn.cross, FoldedCross) and isinstance(dcn.cross_head, nn.Identity)


def test_batch_norm_disappears_into_the_layer_before_it():
    folded = fold(_MODELS["dcn", True])
    assert not any(isinstance(module, nn.BatchNorm1d) for module in folded.modules())


def test_two_factors_merge_where_the_folded_input_is_narrow_and_nothing_bends_between():
    plan = RankPlan.of({**_tables(1), "mlp.0": 8})
    model, spectra = _MODELS["dcn", False], _SPECTRA["dcn", False]
    assert isinstance(fold(compress_model(model, CompressionSpec(plan=plan), spectra).model).mlp[0], nn.Linear)
    assert isinstance(
        fold(compress_model(model, CompressionSpec(plan=plan, bottleneck="prelu"), spectra).model).mlp[0], FactoredLinear
    )


def test_the_model_that_is_folded_stays_as_it_was_and_shares_nothing():
    model = compress_model(_MODELS["deepfm", True], CompressionSpec.of(_tables(2)), _SPECTRA["deepfm", True]).model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    folded = fold(model)
    assert torch.equal(torch.get_rng_state(), random)
    perturb_(folded, 1.0)
    assert model.training and not folded.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_folding_twice_is_folding_once():
    once = fold(_MODELS["dcn", False])
    assert torch.equal(logits(fold(once), FIELDS), logits(once, FIELDS))


def test_a_reader_without_a_rule_keeps_the_projection_for_all():
    class Odd(type(_MODELS["dcn", False])):
        embedding_readers: ClassVar = {"embedding": ("mlp", "cross", "extra")}

    model = make_model("dcn", batch_norm=True)
    model.__class__ = Odd
    model.extra = nn.Tanh()
    compressed = compress_model(model, CompressionSpec.of(_tables(2)), _SPECTRA["dcn", True]).model
    folded = fold(compressed)
    assert type(folded.embedding) is type(compressed.embedding)
    torch.testing.assert_close(logits(folded, FIELDS), logits(compressed, FIELDS), rtol=1e-5, atol=1e-5)
    perturb_(folded.embedding, 1.0)
    torch.testing.assert_close(logits(fold(compressed), FIELDS), logits(compressed, FIELDS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", [("deepfm", True), ("dcn", False)])
def test_folded_models_run_in_onnx_runtime(key):
    plan = RankPlan.of({"embedding.site": 2, "embedding.ad": 3, "mlp.0": 5})
    folded = fold(compress_model(_MODELS[key], CompressionSpec(plan=plan, bottleneck="prelu"), _SPECTRA[key]).model)
    output = run_onnx(folded, FIELDS)
    torch.testing.assert_close(torch.from_numpy(output), logits(folded, FIELDS), rtol=1e-4, atol=1e-4)
