"""SENet and the bilinear layer against the paper's formulas, written as loops."""

from itertools import combinations

import numpy as np
import pytest
import torch

from ctrlab.engines.fast.bilinear import FastPairInteraction
from ctrlab.models.fibinet import BilinearInteraction
from tests.support.engines import twin
from tests.support.small_models import SCHEMA, logits, make_model, random_fields

FIELDS = random_fields(5)


def by_loops(e, matrices):
    """p_ij = (W_ij e_i) * e_j for one row e (M, d), side by side; matrices {(i, j): W_ij}."""
    return np.concatenate([(matrices[i, j] @ e[i]) * e[j] for i, j in combinations(range(len(e)), 2)])


def matrices_of(layer, num_vectors):
    """{(i, j): W_ij} of any type of bilinear layer."""
    maps = [linear.weight.detach().double().numpy() for linear in layer.maps]
    d = layer.embed_dim
    found = {}
    for i, j in combinations(range(num_vectors), 2):
        part = j - i - 1
        found[i, j] = {"all": maps[0], "each": maps[min(i, len(maps) - 1)]}.get(layer.kind)
        if layer.kind == "interaction":
            found[i, j] = maps[i][part * d : (part + 1) * d]
    return found


def senet_by_loops(senet, e):
    z = e.mean(axis=1)
    squeeze, excite = (linear.weight.detach().double().numpy() for linear in (senet.squeeze, senet.excite))
    weights = np.maximum(excite @ np.maximum(squeeze @ z, 0), 0)
    return np.stack([weight * vector for weight, vector in zip(weights, e, strict=True)])


@pytest.mark.parametrize("kind", ["all", "each", "interaction"])
def test_the_mlp_reads_the_papers_pairs(kind):
    model = make_model("fibinet", bilinear_type=kind)
    seen = []
    model.mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    logits(model, FIELDS)
    for row, e in enumerate(model.embedding(FIELDS).detach().double().numpy()):
        plain = by_loops(e, matrices_of(model.interaction.bilinear, len(e)))
        weighed = by_loops(senet_by_loops(model.interaction.senet, e), matrices_of(model.interaction.bilinear, len(e)))
        np.testing.assert_allclose(seen[0][row], np.concatenate([plain, weighed]), atol=1e-5)


@pytest.mark.parametrize(("kind", "count"), [("all", 1), ("each", 4), ("interaction", 10)])
def test_matrices_are_as_many_as_the_type_says_and_products_fewer_than_fields(kind, count):
    layer = BilinearInteraction(5, 3, kind)
    assert sum(parameter.numel() for parameter in layer.parameters()) == count * 3 * 3
    assert len(layer.maps) <= 4


def test_the_importance_network_is_as_narrow_as_asked():
    assert make_model("fibinet", reduction_ratio=2.0).interaction.senet.squeeze.out_features == SCHEMA.num_fields // 2
    assert make_model("fibinet", reduction_ratio=64.0).interaction.senet.squeeze.out_features == 1


def test_sigmoid_excitation_keeps_weights_between_nought_and_one():
    model = make_model("fibinet", excitation="sigmoid")
    e = model.embedding(FIELDS)
    ratio = model.interaction.senet(e) / e
    assert (ratio > 0).all()
    assert (ratio < 1).all()


def test_the_logit_is_the_linear_term_and_the_mlp():
    model = make_model("fibinet", numeric_fields="raw")
    e = model.embedding(FIELDS)
    pairs = model.interaction(e)
    expected = model.linear(FIELDS) + model.mlp(torch.cat([pairs, FIELDS.values], dim=1)).squeeze(1)
    torch.testing.assert_close(logits(model, FIELDS), expected.detach())


def joins(model):
    """Whether the pairs and the first layer are one."""
    return isinstance(model.interaction, FastPairInteraction) and model.interaction.joins


def trained_step(model, fields, *, as_fit_does):
    """The logits and the gradient of every parameter."""
    model.train()
    model.zero_grad()
    out = (twin(model) if as_fit_does else model)(fields)
    out.square().mean().backward()
    gradients = {name: parameter.grad.to_dense().clone() for name, parameter in model.named_parameters() if parameter.numel()}
    return gradients | {"logits": out.detach()}


@pytest.mark.parametrize("rows", [1, 150])
@pytest.mark.parametrize(
    "settings",
    [
        {"bilinear_type": "all"}, {"bilinear_type": "each"}, {"bilinear_type": "interaction"},
        {"excitation": "sigmoid"}, {"mlp_dims": ()}, {"mlp_dims": (7,), "dropout": 0.0},
    ],
)  # fmt: skip
def test_a_fits_step_is_that_of_plain_layers(settings, rows):
    model, fields = make_model("fibinet", **settings), random_fields(rows)
    plain = trained_step(model, fields, as_fit_does=False)
    in_one = trained_step(model, fields, as_fit_does=True)
    assert joins(twin(model))
    for name, expected in plain.items():
        torch.testing.assert_close(in_one[name], expected, atol=1e-5, rtol=1e-4, msg=name)


def test_batch_normalisation_reads_the_first_layer():
    model, fields = make_model("fibinet", batch_norm=True), random_fields(64)
    plain = trained_step(model, fields, as_fit_does=False)
    in_one = trained_step(model, fields, as_fit_does=True)
    assert joins(twin(model))
    for name, expected in plain.items():
        torch.testing.assert_close(in_one[name], expected, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("name", ["mlp.0", "mlp", "interaction", "interaction.bilinear", "interaction.bilinear.maps.0"])
def test_a_hook_in_a_fit_sees_what_its_module_reads(name):
    model, seen = make_model("fibinet"), []
    model.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    trained_step(model, FIELDS, as_fit_does=False)
    trained_step(model, FIELDS, as_fit_does=True)
    assert not joins(twin(model))
    for plain, in_fit in zip(*(seen[: len(seen) // 2], seen[len(seen) // 2 :]), strict=True):
        for mine, theirs in zip(in_fit, plain, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    assert seen


def test_a_prediction_makes_no_pairs_of_a_whole_batch_either():
    model = make_model("fibinet").eval()
    with torch.inference_mode():
        torch.testing.assert_close(twin(model)(FIELDS), model(FIELDS), atol=1e-5, rtol=1e-4)


def test_raw_values_go_layer_by_layer():
    model = make_model("fibinet", numeric_fields="raw")
    trained_step(model, FIELDS, as_fit_does=True)
    assert not joins(twin(model))


def test_a_layer_that_was_factored_is_trained_as_it_is():
    model = make_model("fibinet")
    model.mlp[0] = torch.nn.Sequential(torch.nn.Linear(model.mlp[0].in_features, 3), torch.nn.Linear(3, 32))
    trained_step(model, FIELDS, as_fit_does=True)
    assert not joins(twin(model))
