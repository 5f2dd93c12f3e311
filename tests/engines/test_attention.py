"""engines/fast/attention.py against torch's attention and autograd in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from torch import nn
from torch.nn import functional

from ctrlab.engines.fast import attention
from ctrlab.kernels import vectors
from tests.support.engines import in_parts, twin
from tests.support.small_models import make_model, random_fields


def attend(*parts, threads=1, **settings):
    return attention.attend(*parts, parts=in_parts(threads), **settings)


def attend_projected(*parts, threads=1, **settings):
    return attention.attend_projected(*parts, parts=in_parts(threads), **settings)


#: Rows, fields, heads, the width of a head.
SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 20), st.integers(1, 3), st.integers(1, 17))


def oracle(query, key, value, heads, scale):
    query, key, value = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2).flatten(2)


def layer_oracle(e, query, key, value, heads, scale, residual, relu):
    out = oracle(e @ query.t(), e @ key.t(), e @ value.t(), heads, scale)
    out = out + e if residual else out
    return out.relu() if relu else out


def values_and_gradients(function, tensors, upstream):
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    out = function(*tensors)
    return [out.detach(), *torch.autograd.grad(out, tensors, upstream.to(out.dtype))]


def assert_same(found, expected, tolerance=2e-5):
    for mine, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=tolerance, atol=tolerance * max(1.0, exact.abs().max().item()))


def inputs(rows, fields, width, seed, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [size * torch.randn(rows, fields, width, generator=generator) for _ in range(3)]


def layer_inputs(rows, fields, in_width, width, seed):
    generator = torch.Generator().manual_seed(seed)
    e = torch.randn(rows, fields, in_width, generator=generator)
    return [e, *(torch.randn(width, in_width, generator=generator) / in_width**0.5 for _ in range(3))]


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from([1.0, 0.25]), st.integers(0, 1000))
def test_values_and_gradients_are_those_of_torchs_attention(shape, scale, seed):
    rows, fields, heads, width = shape
    parts, upstream = inputs(rows, fields, heads * width, seed), torch.randn(rows, fields, heads * width)
    found = values_and_gradients(lambda *qkv: attend(*qkv, heads=heads, scale=scale), parts, upstream)
    exact = [part.double() for part in parts]
    assert_same(found, values_and_gradients(lambda *qkv: oracle(*qkv, heads, scale), exact, upstream))


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(1, 20), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_a_whole_layer_is_projections_attention_and_what_follows(shape, in_width, residual, relu, seed):
    rows, fields, heads, width = shape
    in_width = heads * width if residual else in_width
    parts, upstream = layer_inputs(rows, fields, in_width, heads * width, seed), torch.randn(rows, fields, heads * width)
    ends = {"residual": residual, "relu": relu}
    exact = values_and_gradients(lambda *ps: layer_oracle(*ps, heads, 1.0, **ends), [p.double() for p in parts], upstream)
    # Where rounding decides on which side of the ReLU's corner a number lies, there is no right gradient.
    upstream = torch.where((exact[0] > 0) & (exact[0] < 1e-5), 0.0, upstream) if relu else upstream
    exact = values_and_gradients(lambda *ps: layer_oracle(*ps, heads, 1.0, **ends), [p.double() for p in parts], upstream)
    found = values_and_gradients(lambda *ps: attend_projected(*ps, heads=heads, scale=1.0, **ends), parts, upstream)
    assert_same(found, exact)


@pytest.mark.parametrize("shape", [(39, 2, 8), (39, 2, 32), (200, 1, 16), (8, 4, 16)])
def test_the_shapes_of_usual_models(shape):
    fields, heads, width = shape
    parts, upstream = layer_inputs(9, fields, 16, heads * width, 1), torch.randn(9, fields, heads * width)
    found = values_and_gradients(
        lambda *ps: attend_projected(*ps, heads=heads, scale=1.0, residual=False, relu=False), parts, upstream
    )
    exact = [part.double() for part in parts]
    assert_same(found, values_and_gradients(lambda *ps: layer_oracle(*ps, heads, 1.0, False, False), exact, upstream))


def test_large_scores_do_not_overflow():
    parts, upstream = inputs(4, 11, 16, 0, size=60), torch.randn(4, 11, 16)
    assert (parts[0] @ parts[1].transpose(1, 2)).abs().max() > 10_000
    found = values_and_gradients(lambda *qkv: attend(*qkv, heads=2, scale=1.0), parts, upstream)
    assert all(part.isfinite().all() for part in found)
    exact = values_and_gradients(lambda *qkv: oracle(*qkv, 2, 1.0), [part.double() for part in parts], upstream)
    assert_same(found, exact, tolerance=2e-3)  # the scores themselves are only so exact


def test_inputs_of_any_layout_and_without_gradients_are_taken():
    parts = [part.transpose(0, 1) for part in inputs(7, 5, 6, 2)]
    torch.testing.assert_close(attend(*parts, heads=3, scale=1.0), oracle(*parts, 3, 1.0))
    e, *weights = layer_inputs(5, 7, 8, 8, 3)
    e = e.transpose(0, 1)
    found = attend_projected(e, *weights, heads=1, scale=1.0, residual=True, relu=True)
    torch.testing.assert_close(found, layer_oracle(e, *weights, 1, 1.0, True, True))


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65])
def test_batches_of_any_size_are_taken(rows):
    parts, upstream = layer_inputs(rows, 9, 8, 8, 4), torch.randn(rows, 9, 8)
    ends = {"residual": True, "relu": False}
    found = values_and_gradients(lambda *ps: attend_projected(*ps, heads=1, scale=1.0, **ends), parts, upstream)
    assert found[0].shape == (rows, 9, 8)
    if rows:
        exact = [part.double() for part in parts]
        assert_same(found, values_and_gradients(lambda *ps: layer_oracle(*ps, 1, 1.0, **ends), exact, upstream))


def test_a_row_does_not_depend_on_the_rows_beside_it():
    parts, upstream = inputs(40, 9, 16, 5), torch.randn(40, 9, 16)
    together = values_and_gradients(lambda *qkv: attend(*qkv, heads=2, scale=1.0), parts, upstream)
    alone = values_and_gradients(lambda *qkv: attend(*qkv, heads=2, scale=1.0), [part[7:8] for part in parts], upstream[7:8])
    assert all(torch.equal(many[7:8], one) for many, one in zip(together, alone, strict=True))


def test_results_do_not_depend_on_the_number_of_threads():
    parts, layer, upstream = inputs(150, 13, 16, 6), layer_inputs(150, 13, 16, 16, 6), torch.randn(150, 13, 16)
    ends, results = {"heads": 2, "scale": 1.0, "residual": True, "relu": True}, []
    for threads in (1, 2, 3):
        found = values_and_gradients(lambda *qkv, n=threads: attend(*qkv, heads=2, scale=1.0, threads=n), parts, upstream)
        found += values_and_gradients(lambda *ps, n=threads: attend_projected(*ps, **ends, threads=n), layer, upstream)
        results.append(found)
    assert all(torch.equal(one, other) for found in results[1:] for one, other in zip(results[0], found, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("part", range(3))
def test_numbers_that_are_not_finite_are_not_lost_and_stay_in_their_row(bad, part):
    parts = [tensor.abs() for tensor in inputs(3, 9, 8, 7)]
    parts[part][1, 4, 3] = bad
    found, expected = attend(*parts, heads=1, scale=1.0), oracle(*(tensor.double() for tensor in parts), 1, 1.0)
    assert not found[~expected.isfinite()].isfinite().any()
    assert found[[0, 2]].isfinite().all()
    e, *weights = layer_inputs(3, 9, 8, 8, 7)
    e[1, 4, 3] = bad
    assert not attend_projected(e, *weights, heads=1, scale=1.0, residual=True, relu=True)[1].isfinite().any()


def test_powers_of_two_are_right_to_two_tenths_of_a_millionth():
    @njit
    def powers(x, out):
        for i in range(0, len(x), 8):
            vectors.store(out, i, vectors.power_of_two(vectors.load(x, i)))

    x = np.concatenate([-np.geomspace(1e-9, 126.4, 40_000), -np.linspace(0, 126.4, 40_000)]).astype(np.float32)
    out = np.empty_like(x)
    powers(x, out)
    exact = np.exp2(x.astype(np.float64))
    assert np.abs(out / exact - 1).max() < 2e-7
    powers(np.array([0, -127, -1000, -np.inf, np.nan, -1, -2, -126], np.float32), out)
    np.testing.assert_array_equal(out[1:5], [0, 0, 0, np.nan])
    np.testing.assert_allclose(out[[0, 5, 6, 7]], [1, 0.5, 0.25, 2.0**-126], rtol=2e-7)


def plain_layers(model):
    """The same model, its layers made of torch's parts: a hook that listens to a projection asks for them."""
    for layer in model.attention:
        layer.query.register_forward_hook(lambda module, inputs, output: None)
    return model


@pytest.mark.parametrize(
    "changes",
    [{}, {"attention_layer_norm": True}, {"attention_residual": False}, {"attention_dim": 12, "attention_scale": True}],
    ids=["as in the paper", "normalised", "without residual", "another width"],
)
@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_whole_models_learn_from_the_same_gradients(changes, compute_dtype):
    fields, results = random_fields(20), []
    for change in (lambda model: model, plain_layers):
        torch.manual_seed(3)
        model = change(make_model("autoint", embed_dim=8, **changes)).train()
        twin(model, compute_dtype=compute_dtype)(fields).square().sum().backward()
        results.append([parameter.grad.to_dense() for parameter in model.parameters()])
    close = {"atol": 1e-5, "rtol": 1e-4} if compute_dtype == "float32" else {"atol": 0.05, "rtol": 0.1}
    for mine, theirs in zip(*results, strict=True):
        scale = theirs.abs().max().clamp_min(1e-6)
        torch.testing.assert_close(mine / scale, theirs / scale, **close)


def test_a_hook_on_a_projection_sees_its_numbers():
    model, fields, seen = make_model("autoint"), random_fields(4), []
    without = model(fields)
    model.attention[1].key.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    torch.testing.assert_close(twin(model)(fields), without, atol=1e-5, rtol=1e-5)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0][1], functional.linear(seen[0][0], model.attention[1].key.weight))


@pytest.mark.parametrize("changed", ["a subclass", "a bias"])
def test_projections_that_are_more_than_a_matrix_are_run_as_they_are(changed):
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model, fields = make_model("autoint"), random_fields(4)
    layer = model.attention[0]
    width, out = layer.query.in_features, layer.query.out_features
    layer.query = Doubled(width, out, bias=False) if changed == "a subclass" else nn.Linear(width, out)
    torch.testing.assert_close(twin(model)(fields), model(fields), atol=1e-5, rtol=1e-5)


def test_dropout_of_attention_weights_is_torchs():
    model, fields = make_model("autoint", attention_dropout=0.5).train(), random_fields(6)
    torch.manual_seed(0)
    expected = model(fields)
    torch.manual_seed(0)
    torch.testing.assert_close(twin(model)(fields), expected, atol=1e-5, rtol=1e-5)
