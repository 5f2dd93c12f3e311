"""The data-aware relatives of the SVD, against their definitions computed from the inputs themselves."""

import numpy as np
import pytest
import torch

from ctrlab.compression.surgery import compress_model
from ctrlab.compression.whitened import WhitenedSVD
from ctrlab.errors import CompressionError
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.plans.methods import METHODS
from tests.support.small_models import MemoryDataset, logits, make_model, spectra_of

DATA = MemoryDataset()
LOW_RANK = [name for name in METHODS.names() if METHODS[name].keeps_latents]


def inputs_and_layer(model):
    """x (n, in) float64 of the first MLP layer over the training rows, its W and b, and what it became at `rank`."""
    with torch.no_grad():
        x = model.embedding.dense_input(model.embedding(DATA.fields()), DATA.fields()).double()
    return x, model.mlp[0].weight.detach().double(), model.mlp[0].bias.detach().double()


def mean_error(x, weight, bias, layer):
    with torch.no_grad():
        return float((layer.double()(x) - (x @ weight.T + bias)).square().sum(1).mean())


@pytest.mark.parametrize("rank", [1, 4, 9])
@pytest.mark.parametrize("architecture", ["deepfm", "dcn"])
def test_whitened_svd_is_the_svd_of_the_whitened_weights(architecture, rank):
    model = make_model(architecture)
    built = compress_model(model, CompressionSpec.of({"mlp.0": rank}, method="whitened_svd"), spectra_of(model)).model.mlp[0]
    x, weight, bias = inputs_and_layer(model)
    values, vectors = np.linalg.eigh((x.T @ x / len(x)).numpy())
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    left, singular, _ = np.linalg.svd(weight.numpy() @ root)
    assert mean_error(x, weight, bias, built) == pytest.approx(float(np.square(singular[rank:]).sum()), rel=1e-4)
    product = (built.restore.weight @ built.reduce.weight).detach().numpy()
    np.testing.assert_allclose(product, left[:, :rank] @ left[:, :rank].T @ weight.numpy(), atol=1e-4)
    torch.testing.assert_close(built.restore.bias.double(), bias, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_bias_correction_keeps_the_mean_output_and_equals_its_definition(rank):
    model = make_model("deepfm")
    spectra, plan = spectra_of(model), RankPlan.of({"mlp.0": rank})
    plain = compress_model(model, CompressionSpec(plan=plan, method="svd")).model.mlp[0]
    corrected = compress_model(model, CompressionSpec(plan=plan, method="svd_corrected"), spectra).model.mlp[0]
    x, weight, bias = inputs_and_layer(model)
    cut = weight - (plain.restore.weight @ plain.reduce.weight).detach().double()
    torch.testing.assert_close(corrected.restore.bias.double(), bias + cut @ x.mean(0), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(corrected.double()(x).mean(0), (x @ weight.T + bias).mean(0), atol=1e-5, rtol=1e-5)
    assert mean_error(x, weight, bias, corrected) < mean_error(x, weight, bias, plain)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_no_method_of_the_same_rank_has_a_smaller_error_than_afm_on_the_calibration_rows(rank):
    model = make_model("deepfm")
    spectra, x, weight, bias = spectra_of(model, loss_gradients=True), *inputs_and_layer(model)
    vectors = model.embedding(DATA.fields())[:, 2].detach()
    errors, table_errors = {}, {}
    for method in LOW_RANK:
        built = compress_model(model, CompressionSpec.of({"mlp.0": rank, "embedding.ad": rank}, method=method), spectra).model
        errors[method] = mean_error(x, weight, bias, built.mlp[0])
        table_errors[method] = float((built.embedding(DATA.fields())[:, 2] - vectors).detach().square().sum(1).mean())
    assert min(errors.values()) == pytest.approx(errors["afm"], rel=1e-6)
    assert min(table_errors.values()) == pytest.approx(table_errors["afm"], rel=1e-6)
    assert errors["whitened_svd"] <= errors["svd"] and table_errors["svd_corrected"] <= table_errors["svd"]


@pytest.mark.parametrize("method", LOW_RANK)
def test_every_method_is_the_identity_at_full_rank(method):
    model = make_model("deepfm")
    full = RankPlan.of({"mlp.0": 32, "mlp.2": 24, **{f"embedding.{field}": 8 for field in ("site", "device", "ad")}})
    built = compress_model(
        model,
        CompressionSpec(plan=full, method=method),
        spectra_of(model, loss_gradients=True),
        respect_break_even=False,
    ).model
    torch.testing.assert_close(logits(built, DATA.fields()), logits(model, DATA.fields()), atol=1e-5, rtol=1e-5)


def test_whitening_a_shared_basis_without_all_spectra_is_refused():
    with pytest.raises(CompressionError, match="spectrum of every table"):
        WhitenedSVD().shared_basis([torch.zeros(3, 2)], [None], 1)
