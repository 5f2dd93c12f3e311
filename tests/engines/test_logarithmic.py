"""engines/fast/logarithmic.py against the layers one after the other, in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ctrlab.engines.fast.context import Limits
from ctrlab.engines.fast.logarithmic import FastLogarithmicInteraction, linear_of_neurons
from tests.support.engines import fast_layer, twin
from tests.support.small_models import make_model, random_fields


def setting(rows, places, vectors, neurons, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, places, vectors), (neurons, vectors), (neurons,), (neurons,), (outputs, places * neurons), (outputs,))
    made = [0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    # Powers near 0 give neurons near 1 whose variance float32 does not see.
    made[1] += 0.3 * made[1].sign()
    return made


def normalisation(neurons, scale, shift):
    norm = nn.BatchNorm1d(neurons).to(scale.dtype)
    norm.weight.data, norm.bias.data = scale, shift
    return norm


def one_behind_the_other(logarithms, powers, scale, shift, weight, bias, norm, relu):
    normalised = norm((logarithms @ powers.t()).exp().flatten(0, 1)).unflatten(0, (len(logarithms), -1)).flatten(1)
    out = normalised @ weight.t() + bias
    return out.relu() if relu else out


def in_one(logarithms, powers, scale, shift, weight, bias, norm, relu, **settings):
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    out = linear_of_neurons(fast_layer(layer, relu=relu, **settings), logarithms, powers, norm)
    return out, layer


def results(way, tensors, dtype, relu, **settings):
    logarithms, powers, scale, shift, weight, bias = (tensor.to(dtype).requires_grad_() for tensor in tensors)
    norm = normalisation(len(scale), scale.detach().clone(), shift.detach().clone())
    made = way(logarithms, powers, scale, shift, weight.detach() if way is in_one else weight, bias.detach() if way is in_one else bias,
               norm, relu, **settings)  # fmt: skip
    out, layer = made if way is in_one else (made, None)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
    dense = (layer.weight.grad, layer.bias.grad) if layer is not None else (weight.grad, bias.grad)
    return [
        out.detach(),
        logarithms.grad,
        powers.grad,
        norm.weight.grad,
        norm.bias.grad,
        *dense,
        norm.running_mean,
        norm.running_var,
    ]


def hold_together(found, expected, tolerance):
    for ours, oracle in zip(found, expected, strict=True):
        assert (ours.double() - oracle).norm() <= tolerance * (oracle.norm() + 1)


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(2, 70), places=st.integers(1, 5), vectors=st.integers(1, 6), neurons=st.integers(1, 9),
    relu=st.booleans(), seed=st.integers(0, 99), width=st.sampled_from([1, 6, 1024]),
)  # fmt: skip
def test_outputs_gradients_and_running_statistics_are_those_of_the_layers(rows, places, vectors, neurons, relu, seed, width):
    tensors = setting(rows, places, vectors, neurons, 7, seed)
    found = results(in_one, tensors, torch.float32, relu, limits=Limits(neuron_width=width))
    # Few numbers may be all but equal, and their variance, that batch normalisation divides by, next to nothing.
    hold_together(found, results(one_behind_the_other, tensors, torch.float64, relu), 1e-3 if rows * places > 8 else 3e-2)


def test_bfloat16_stays_close_and_sums_in_float32():
    tensors = setting(200, 4, 5, 30, 16, 0)
    found = results(in_one, tensors, torch.float32, False, compute_dtype="bfloat16")
    assert found[0].dtype == torch.float32
    hold_together(found, results(one_behind_the_other, tensors, torch.float64, False), 3e-2)


def joins(model):
    return isinstance(model.logarithm, FastLogarithmicInteraction) and model.logarithm.joins


def step(model, fields):
    model.zero_grad()
    out = model.train()(fields)
    out.square().mean().backward()
    gradients = {name: parameter.grad.to_dense().clone() for name, parameter in model.named_parameters() if parameter.numel()}
    return gradients | {name: buffer.clone() for name, buffer in model.named_buffers()} | {"logits": out.detach()}


@pytest.mark.parametrize("name", ["afn", "afn_plus"])
@pytest.mark.parametrize("rows", [2, 150])
def test_a_fits_step_and_its_predictions_are_those_of_plain_layers(name, rows):
    plain, fast, fields = make_model(name), make_model(name), random_fields(rows)
    expected = step(plain, fields)
    with torch.no_grad():
        predicted = plain.eval()(fields)
    assert joins(twin(fast))
    found = step(twin(fast), fields)
    with torch.no_grad():
        torch.testing.assert_close(twin(fast).eval()(fields), predicted, atol=1e-5, rtol=1e-4)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-3, msg=key)


@pytest.mark.parametrize("name", ["mlp.0", "mlp", "logarithm", "logarithm.powers", "logarithm.exp_norm"])
def test_a_hook_sees_the_tensor_that_its_module_reads(name):
    model, seen = make_model("afn"), []
    model.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    step(twin(model), random_fields(20))
    assert len(seen) == 1 and isinstance(seen[0], torch.Tensor)


def test_raw_values_and_a_factored_layer_go_layer_by_layer():
    raw, factored = make_model("afn", numeric_fields="raw"), make_model("afn")
    factored.mlp[0] = nn.Sequential(nn.Linear(factored.mlp[0].in_features, 3), nn.Linear(3, factored.mlp[0].out_features))
    for model in (raw, factored):
        assert not joins(twin(model))
        step(twin(model), random_fields(20))
