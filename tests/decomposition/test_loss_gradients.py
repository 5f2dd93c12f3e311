"""decomposition/gradients.py and loss_weights.py against one loss at a time, and the losses that they predict against measured ones."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ctrlab.compression.afm import AFM
from ctrlab.compression.surgery import compress_model
from ctrlab.compression.weighted_afm import LossWeightedAFM
from ctrlab.decomposition.gradients import collect_loss_gradients
from ctrlab.decomposition.loss_weights import weight_root, weighted_directions
from ctrlab.decomposition.spectrum import load_spectra, save_spectra
from ctrlab.errors import CompressionError, JobCancelled
from ctrlab.models.configs import MODELS
from ctrlab.models.inventory import list_layers
from ctrlab.plans.configs import CompressionSpec
from tests.support.small_models import MemoryDataset, logits, make_model, random_fields, spectra_of


def compressible(model):
    return [layer for layer in list_layers(model) if layer.skip_reason is None]


@pytest.mark.parametrize("name", MODELS.names())
def test_moments_of_linear_layers_are_those_of_losses_with_both_labels(name):
    model, fields = make_model(name), random_fields(40)
    layers = [layer for layer in compressible(model) if layer.kind == "linear"]
    outputs, expected = [], {layer.layer_name: 0.0 for layer in layers}
    handles = [
        model.get_submodule(layer.module_name).register_forward_hook(
            lambda module, args, output, name=layer.layer_name: outputs.append((name, output))
        )
        for layer in layers
    ]
    found = model(fields)
    outputs = [(layer_name, output) for layer_name, output in outputs if output.requires_grad and len(output) > 1]
    for handle in handles:
        handle.remove()
    p = torch.sigmoid(found.detach())
    for label, share in ((1.0, p), (0.0, 1 - p)) if outputs else ():
        losses = binary_cross_entropy_with_logits(found, torch.full_like(found, label), reduction="none")
        weighted = (losses * share.sqrt()).sum()
        gradients = torch.autograd.grad(weighted, [output for _, output in outputs], retain_graph=True, allow_unused=True)
        for (layer_name, _), gradient in zip(outputs, gradients, strict=True):
            if gradient is not None:
                rows = gradient.flatten(0, -2).double()
                expected[layer_name] = expected[layer_name] + rows.T @ rows / len(p)
    collected = collect_loss_gradients(model, [fields], compressible(model), threads=1)
    assert set(collected) == {layer.layer_name for layer in compressible(model)}
    for layer_name, moment in expected.items():
        if isinstance(moment, float):  # FinalMLP's learned context: one output for all rows
            assert not collected[layer_name].any()
            continue
        torch.testing.assert_close(collected[layer_name], moment, atol=1e-4 * float(moment.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("name", ["deepfm", "dcn", "din"])
def test_moments_of_tables_are_those_of_single_rows(name):
    model, fields = make_model(name), random_fields(12)
    tables = [layer for layer in compressible(model) if layer.kind == "embedding"]
    expected = {layer.layer_name: torch.zeros(8, 8, dtype=torch.float64) for layer in tables}
    weight = model.embedding.categorical.table.weight
    for row in range(12):
        one = type(fields)(*(part[row : row + 1] for part in fields))
        logit = model(one)
        p = float(torch.sigmoid(logit.detach()))
        (gradient,) = torch.autograd.grad(logit.sum(), weight)
        for layer in tables:
            own = gradient[model.embedding.categorical.rows_of(layer.field)].double()
            own = own[own.abs().sum(1) > 0]
            expected[layer.layer_name] += p * (1 - p) * own.T @ own / 12
    collected = collect_loss_gradients(model, [fields], tables, threads=1)
    repeated = {"embedding.ad"} if name == "din" else set()  # an id that a row looks up twice has the sum of two gradients
    for layer in tables:
        if layer.layer_name not in repeated and layer.layer_name != "embedding.tags":
            torch.testing.assert_close(collected[layer.layer_name], expected[layer.layer_name], atol=1e-6, rtol=1e-3)


def test_the_model_is_left_as_it_is():
    model = make_model("autoint_plus").train()
    hooks = {name: dict(module._forward_hooks) for name, module in model.named_modules()}
    parameters = dict(model.named_parameters())
    collect_loss_gradients(model, [random_fields(30)], compressible(model))
    assert all(module.training for module in model.modules())
    assert {name: dict(module._forward_hooks) for name, module in model.named_modules()} == hooks
    assert all(own is parameters[name] and own.grad is None and own.requires_grad for name, own in model.named_parameters())
    assert "look_up" not in vars(model.embedding)


def test_the_moments_do_not_depend_on_threads_or_on_how_rows_are_cut():
    model, fields = make_model("dcn"), random_fields(60)
    parts = [type(fields)(*(part[start : start + 20] for part in fields)) for start in (0, 20, 40)]
    whole, cut = (collect_loss_gradients(model, rows, compressible(model), threads=2) for rows in ([fields], parts))
    for name, moment in whole.items():
        torch.testing.assert_close(cut[name], moment, atol=1e-7, rtol=1e-4)


def test_collecting_is_cancelled_between_batches():
    with pytest.raises(JobCancelled):
        collect_loss_gradients(make_model("fm"), [random_fields(5)], compressible(make_model("fm")), should_stop=lambda: True)


def drawn(width=6, seed=0):
    random = np.random.default_rng(seed)
    rows, gradients = random.normal(size=(200, width)) * np.arange(1, width + 1), random.normal(size=(200, width))
    gradients[:, 0] *= 9
    return np.cov(rows.T, bias=True), gradients.T @ gradients / 200


def test_the_root_squares_to_the_smoothed_moments():
    _, gradients = drawn()
    root, inverse, scale = weight_root(gradients)
    np.testing.assert_allclose(root @ root * scale, gradients + 0.1 * np.trace(gradients) / 6 * np.eye(6), rtol=1e-9)
    np.testing.assert_allclose(root @ inverse, np.eye(6), atol=1e-10)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_weighted_error_is_half_the_discarded_eigenvalues_twice_and_no_map_of_the_rank_has_less(rank):
    covariance, gradients = drawn()
    found = weighted_directions(covariance, gradients)
    weight = weight_root(gradients)
    square = weight.root @ weight.root * weight.scale

    def error(projection):
        rest = np.eye(6) - projection
        return np.trace(square @ rest @ covariance @ rest.T)

    own = error(found.decode[:, :rank] @ found.encode[:, :rank].T)
    assert own == pytest.approx(found.losses[rank:].sum(), rel=1e-9)
    _, vectors = np.linalg.eigh(covariance)
    kept = vectors[:, ::-1][:, :rank]
    assert own <= error(kept @ kept.T) * (1 + 1e-9)
    random = np.random.default_rng(1)
    assert all(own <= error(random.normal(size=(6, rank)) @ random.normal(size=(rank, 6))) for _ in range(50))


def test_gradients_that_are_alike_in_all_directions_give_afm():
    model = make_model("deepfm")
    for name, spectrum in spectra_of(model).items():
        weighted = spectrum.weighted_by(3.0 * np.eye(spectrum.width))
        assert weighted.loss_increase(1) == pytest.approx(1.1 * 3.0 * spectrum.discarded(1) / 2, rel=1e-6)
        if spectrum.kind == "linear":
            layer = model.get_submodule(name)
            plain, own = (
                method.linear_factors(layer.weight.double(), layer.bias.double(), weighted, 3)
                for method in (AFM(), LossWeightedAFM())
            )
            torch.testing.assert_close(own.restore_weight @ own.reduce_weight, plain.restore_weight @ plain.reduce_weight)
            torch.testing.assert_close(own.restore_bias, plain.restore_bias)
        else:
            plain, own = (method.table_factors(torch.zeros(1, 8), weighted, 3) for method in (AFM(), LossWeightedAFM()))
            torch.testing.assert_close(own.basis @ own.encoder.T, plain.basis @ plain.encoder.T)
            torch.testing.assert_close(own.basis.T @ own.basis, torch.eye(3, dtype=torch.float64))


def test_an_output_that_no_loss_depends_on_is_compressed_as_afm_does_it():
    covariance, _ = drawn()
    found = weighted_directions(covariance, np.zeros((6, 6)))
    assert not found.losses.any()
    _, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(found.decode[:, :2] @ found.encode[:, :2].T, vectors[:, -2:] @ vectors[:, -2:].T, atol=1e-9)


@pytest.mark.parametrize(("layer", "rank"), [("mlp.0", 8), ("mlp.0", 4), ("embedding.site", 4), ("embedding.ad", 6)])
def test_the_predicted_loss_is_near_the_measured_one_of_the_models_own_labels(layer, rank):
    model, data = make_model("deepfm"), MemoryDataset()
    spectra = spectra_of(model, data, loss_gradients=True)
    small = compress_model(
        model, CompressionSpec.of({layer: rank}, method="weighted_afm"), spectra, respect_break_even=False
    ).model
    p = torch.sigmoid(logits(model, data.fields()))
    losses = [float(binary_cross_entropy_with_logits(logits(each, data.fields()), p)) for each in (model, small)]
    measured, predicted = losses[1] - losses[0], spectra[layer].loss_increase(rank)
    assert 0.3 * predicted < measured < 1.5 * predicted


def test_gradients_come_back_as_they_were_saved(tmp_path):
    spectra = spectra_of(make_model("deepfm"), loss_gradients=True)
    save_spectra(tmp_path, spectra)
    small, whole = load_spectra(tmp_path), load_spectra(tmp_path, eigenvectors=True)
    for name, spectrum in spectra.items():
        assert small[name].gradients is None and small[name].loss_increase(2) == spectrum.loss_increase(2)
        np.testing.assert_array_equal(whole[name].gradients, spectrum.gradients)
    assert spectra_of(make_model("deepfm"))["mlp.0"].loss_increase(2) is None


def test_spectra_without_gradients_are_refused_by_layer():
    model = make_model("deepfm")
    with pytest.raises(CompressionError, match=r"layer mlp\.0 has no gradients of the loss"):
        compress_model(model, CompressionSpec.of({"mlp.0": 4}, method="weighted_afm"), spectra_of(model))


def test_gradients_leave_the_rest_of_the_spectra_as_it_is():
    model = make_model("dcn")
    plain, weighted = spectra_of(model), spectra_of(model, loss_gradients=True)
    for name, spectrum in plain.items():
        np.testing.assert_array_equal(spectrum.eigenvalues, weighted[name].eigenvalues)
        np.testing.assert_array_equal(spectrum.eigenvectors, weighted[name].eigenvectors)
