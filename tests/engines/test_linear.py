"""engines/fast/linear.py and products.py: whatever library takes a product, the numbers are those of torch's own layers."""

import pytest
import torch
from torch import nn

from ctrlab.engines import products
from ctrlab.engines.fast.linear import FastLinear
from ctrlab.engines.products import Products, has_onednn
from tests.support.engines import library, twin
from tests.support.small_models import make_model, random_fields


def results(model, x, **settings):
    return plain(twin(model, **settings), x)


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


@pytest.mark.parametrize("name", ["mkl", "onednn"])
@pytest.mark.parametrize("rows", [2, 37])
def test_outputs_and_gradients_are_those_of_plain_layers_through_either_library(name, rows):
    if name == "onednn" and not has_onednn():
        pytest.skip("oneDNN cannot be reached here")
    model, x, chosen = mlp(), torch.randn(rows, 13), library(name)
    for mine, theirs in zip(results(model, x, products=chosen), plain(model, x), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    assert {choice.rpartition("=")[2] for choice in chosen.choices} == {name}


def test_given_choices_are_repeated_and_never_timed():
    given = ("forward 4x3=mkl", "weight 3x4=mkl")
    chosen = Products("timed", given, timer=lambda *product: pytest.fail("timed again"), least_macs=0)
    results(nn.Sequential(nn.Linear(4, 3)), torch.randn(8, 4), products=chosen)
    assert chosen.choices == given


def test_a_fixed_rule_times_nothing_and_records_nothing():
    chosen = Products(timer=lambda *product: pytest.fail("timed"), least_macs=0)
    for mine, theirs in zip(results(mlp(), torch.ones(6, 13), products=chosen), plain(mlp(), torch.ones(6, 13)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    assert chosen.choices == ()


def test_by_rule_gradients_of_weights_are_mkls_and_other_products_onednns():
    torch.manual_seed(0)
    x, weight = torch.randn(64, 48), torch.randn(32, 48)
    chosen = Products(least_macs=0)
    by_mkl, by_onednn = Products("timed", timer=lambda product, x, weight: 0.0, least_macs=0), library("onednn")
    for kind, first, second, batch, expected in (
        ("input", x, weight, 0, by_onednn), ("weight", x[:32].t(), weight.t(), 1, by_mkl)
    ):  # fmt: skip
        found = chosen.product(kind, first, second, batch=batch)
        assert torch.equal(found, expected.product(kind, first, second, batch=batch))
    assert {choice.rpartition("=")[2] for choice in by_mkl.choices} == {"mkl"}


def test_small_products_are_not_timed():
    chosen = Products("timed")
    results(mlp(), torch.randn(6, 13), products=chosen)
    assert chosen.choices == ()


def test_bfloat16_is_close_keeps_float32_weights_and_gives_float32_outputs():
    model, x = mlp(), torch.randn(64, 13)
    low, full = results(model, x, compute_dtype="bfloat16"), plain(model, x)
    assert all(part.dtype == torch.float32 for part in low)
    assert not torch.equal(low[0], full[0])
    for mine, theirs in zip(low, full, strict=True):
        assert (mine - theirs).norm() <= 0.15 * theirs.norm() + 1e-3


def test_a_relu_right_after_a_layer_is_fused_and_one_after_batch_normalisation_is_not():
    fast = twin(mlp())
    assert [layer.relu for layer in fast if isinstance(layer, FastLinear)] == [True, False, False]
    assert [type(layer) for layer in fast if isinstance(layer, (nn.ReLU, nn.Identity))] == [nn.Identity, nn.ReLU]


def test_a_hook_on_a_layer_sees_the_output_of_that_layer():
    model, x, seen = mlp(), torch.randn(5, 13), []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    twin(model)(x)
    torch.testing.assert_close(seen[0], nn.functional.linear(x, model[0].weight, model[0].bias))
    assert (seen[0] < 0).any()


def test_positions_of_sequences_are_rows_of_one_product():
    layer, x = nn.Linear(5, 4), torch.randn(3, 7, 5)
    torch.testing.assert_close(twin(layer)(x), nn.functional.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("architecture", ["autoint_plus", "dcn", "finalmlp", "gru4rec"])
def test_a_model_in_double_precision_is_run_as_it_is(architecture):
    model, fields = make_model(architecture).double(), random_fields(16)
    fields = type(fields)(fields.ids, fields.values.double(), fields.lists)
    assert torch.equal(twin(model)(fields), model(fields))


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_a_trial_multiplies_few_rows_of_very_wide_layers_and_all_of_narrow_ones(batch, monkeypatch):
    sizes = [3, 4]
    sizes.insert(batch, 500)
    x, weight = torch.zeros(sizes[0], sizes[1]), torch.zeros(sizes[2], sizes[1])
    assert [part.shape for part in products._some_rows(x, weight, batch)] == [x.shape, weight.shape]
    monkeypatch.setattr(products, "MOST_TRIAL_MACS", 12 * 100)
    few, other = products._some_rows(x, weight, batch)
    sizes[batch] = 100
    assert [*few.shape, other.shape[0]] == sizes
    assert other.shape[1] == few.shape[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_product_is_computed_on_any_processor(dtype):
    """oneDNN refuses bfloat16 where the processor has no instructions for it; the other library takes the product then."""
    x, weight, bias = torch.randn(512, 256).to(dtype), torch.randn(256, 256).to(dtype), torch.randn(256).to(dtype)
    found = Products().linear(x, weight, bias, relu=True)
    torch.testing.assert_close(found.float(), (x.float() @ weight.float().t() + bias.float()).relu(), atol=0.5, rtol=2e-2)
