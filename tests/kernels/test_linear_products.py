"""kernels/linear.py: whatever takes a product, the numbers are those of torch's own layers."""

import pytest
import torch
from torch import nn

from ctrlab.kernels import linear
from ctrlab.kernels.linear import fast_linears
from tests.support.small_models import make_model, random_fields


def results(model, x, **settings):
    model.zero_grad()
    with fast_linears(model, **settings):
        out = model(x)
        out.square().mean().backward()
    return [out.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def plain(model, x):
    model.zero_grad()
    out = model(x)
    out.square().mean().backward()
    return [out.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def mlp():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(13, 24),
        nn.ReLU(),
        nn.Linear(24, 16, bias=False),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(16, 1),
    )


@pytest.mark.parametrize("library", ["mkl", "onednn"])
@pytest.mark.parametrize("rows", [2, 37])
def test_outputs_and_gradients_are_those_of_plain_layers_through_either_library(library, rows, monkeypatch):
    if library == "onednn" and not linear.has_onednn():
        pytest.skip("oneDNN cannot be reached here")
    monkeypatch.setattr(linear, "TRIAL_MACS", 0)
    monkeypatch.setattr(
        linear, "_seconds", lambda product, x, weight: float(("onednn" in repr(product)) != (library == "onednn"))
    )
    model, x = mlp(), torch.randn(rows, 13)
    products = {}
    for mine, theirs in zip(results(model, x, products=products), plain(model, x), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    assert set(products.values()) == {library}


def test_earlier_choices_are_kept_to(monkeypatch):
    monkeypatch.setattr(linear, "TRIAL_MACS", 0)
    monkeypatch.setattr(linear, "_seconds", lambda product, x, weight: pytest.fail("timed again"))
    model = nn.Sequential(nn.Linear(4, 3))
    products = dict.fromkeys(("forward 4x3", "weight 3x4"), "mkl")
    results(model, torch.randn(8, 4), products=products)


def test_small_products_are_not_timed():
    products = {}
    results(mlp(), torch.randn(6, 13), products=products)
    assert products == {}


def test_bfloat16_is_close_keeps_float32_weights_and_gives_float32_outputs():
    model, x = mlp(), torch.randn(64, 13)
    low, full = results(model, x, compute_dtype="bfloat16"), plain(model, x)
    assert all(part.dtype == torch.float32 for part in low)
    assert not torch.equal(low[0], full[0])
    for mine, theirs in zip(low, full, strict=True):
        assert (mine - theirs).norm() <= 0.15 * theirs.norm() + 1e-3


def test_afterwards_every_layer_is_as_it_was_even_where_the_work_failed():
    model = mlp()
    with pytest.raises(RuntimeError, match="stop"), fast_linears(model):
        assert "forward" in vars(model[0])
        raise RuntimeError("stop")
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_hook_on_a_layer_sees_what_the_layer_itself_gives():
    model, x, seen = mlp(), torch.randn(5, 13), []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    with fast_linears(model):
        model(x)
    torch.testing.assert_close(seen[0], nn.functional.linear(x, model[0].weight, model[0].bias))
    assert (seen[0] < 0).any()


def test_positions_of_sequences_are_rows_of_one_product():
    layer, x = nn.Linear(5, 4), torch.randn(3, 7, 5)
    with fast_linears(layer):
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("architecture", ["autoint_plus", "dcn", "finalmlp", "gru4rec"])
def test_whole_models_give_the_same_logits(architecture):
    model, fields = make_model(architecture), random_fields(16)
    plainly = model(fields)
    with fast_linears(model):
        torch.testing.assert_close(model(fields), plainly, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_a_trial_multiplies_few_rows_of_very_wide_layers_and_all_of_narrow_ones(batch, monkeypatch):
    sizes = [3, 4]
    sizes.insert(batch, 500)
    x, weight = torch.zeros(sizes[0], sizes[1]), torch.zeros(sizes[2], sizes[1])
    assert [part.shape for part in linear._some_rows(x, weight, batch)] == [x.shape, weight.shape]
    monkeypatch.setattr(linear, "MOST_TRIAL_MACS", 12 * 100)
    few, other = linear._some_rows(x, weight, batch)
    sizes[batch] = 100
    assert [*few.shape, other.shape[0]] == sizes
    assert other.shape[1] == few.shape[1]
