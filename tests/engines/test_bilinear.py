"""engines/fast/bilinear.py against the pairs written out in float64, and autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ctrlab.engines.fast import bilinear
from ctrlab.engines.fast.context import Limits
from ctrlab.engines.products import Products, has_onednn
from tests.support.engines import context, fast_layer, in_parts, library


def setting(rows, vectors, width, outputs=5, *, bias=True, seed=0):
    """(the layer, [e, scale, maps], the gradient of the layer's output)."""
    torch.manual_seed(seed)
    pairs = vectors * (vectors - 1) // 2
    shapes = (rows, vectors, width), (rows, vectors), (pairs, width, width)
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    return nn.Linear(2 * pairs * width, outputs, bias=bias), inputs, torch.randn(rows, outputs)


def by_torch(layer, inputs, relu):
    """The same by torch's own operations."""
    e, scale, maps = inputs
    left, right = torch.triu_indices(e.shape[1], e.shape[1], offset=1)
    pairs = [torch.einsum("bpl,pkl->bpk", vectors[:, left], maps) * vectors[:, right] for vectors in (e, scale.unsqueeze(2) * e)]
    out = layer(torch.cat(pairs, dim=1).flatten(1))
    return out.relu() if relu else out


def results(compute, layer, inputs, upstream):
    """Output and all gradients, in float64."""
    wanted = [*inputs, *layer.parameters()]
    out = compute(layer, inputs)
    return [part.double() for part in (out.detach(), *torch.autograd.grad(out, wanted, upstream.to(out.dtype)))]


def in_one(relu=False, stays=False, **settings):
    return lambda layer, inputs: bilinear.linear_of_pairs(fast_layer(layer, relu=relu, stays=stays, **settings), *inputs)


def in_float64(layer, inputs, upstream, relu=False):
    doubled = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None).double()
    doubled.load_state_dict(layer.state_dict())
    inputs = [part.detach().double().requires_grad_() for part in inputs]
    return results(lambda *given: by_torch(*given, relu), doubled, inputs, upstream.double())


def assert_near(found, expected, tolerance=1e-5):
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert (mine - theirs).norm() <= tolerance * (theirs.norm() + 10)  # sums over the rows may cancel each other out


@settings(max_examples=40, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 127, 128, 129, 300]),
    vectors=st.integers(2, 6),
    width=st.integers(1, 9),
    at_a_time=st.integers(1, 40),
    bias=st.booleans(),
    relu=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_outputs_and_gradients_are_those_of_pairs_written_out(rows, vectors, width, at_a_time, bias, relu, seed):
    layer, inputs, upstream = setting(rows, vectors, width, bias=bias, seed=seed)
    found = results(in_one(relu, limits=Limits(pair_width=at_a_time)), layer, inputs, upstream)
    if relu:  # a unit at the very edge may fall to either side
        upstream = upstream * (found[0] > 0)
    assert_near(found, in_float64(layer, inputs, upstream, relu))


@pytest.mark.parametrize("stays", [False, True])
def test_bfloat16_is_close_and_stays_where_the_next_layer_reads_it(stays):
    layer, inputs, upstream = setting(200, 5, 8)
    expected = in_float64(layer, inputs, upstream)
    assert_near(results(in_one(compute_dtype="bfloat16", stays=stays), layer, inputs, upstream), expected, 0.02)
    out = in_one(compute_dtype="bfloat16", stays=stays)(layer, inputs)
    assert out.dtype == (torch.bfloat16 if stays else torch.float32)


def test_results_do_not_depend_on_the_number_of_threads():
    _, inputs, _ = setting(700, 6, 8)
    found = []
    for number in (1, 2, 3):
        pairs = bilinear._Pairs(*(part.detach() for part in inputs), context(parts=in_parts(number)))
        gradients = bilinear._Gradients(pairs)
        for chunk in pairs.chunks():
            made = pairs.made(chunk)
            gradients.add(chunk, made.cos())
        found.append([made, *gradients.finished()])
    first, *others = found
    for other in others:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(first, other, strict=True))


@pytest.mark.parametrize("frozen", range(5))
def test_what_needs_no_gradient_gets_none_and_the_others_get_theirs(frozen):
    layer, inputs, upstream = setting(9, 4, 3)
    expected = results(in_one(), layer, inputs, upstream)[1:]
    parts = [*inputs, *layer.parameters()]
    parts[frozen].requires_grad_(False)
    in_one()(layer, inputs).backward(upstream)
    assert parts[frozen].grad is None
    for place, (part, theirs) in enumerate(zip(parts, expected, strict=True)):
        if place != frozen:
            torch.testing.assert_close(part.grad.double(), theirs)


@pytest.mark.parametrize("name", ["mkl", "onednn"])
def test_choices_of_libraries_are_recorded_and_do_not_depend_on_the_rows(name):
    if name == "onednn" and not has_onednn():
        pytest.skip("oneDNN cannot be reached here")
    products, limits = library(name), Limits(pair_width=12)
    layer, inputs, upstream = setting(40, 5, 3)
    expected = in_float64(layer, inputs, upstream)
    assert_near(results(in_one(products=products, limits=limits), layer, inputs, upstream), expected)
    assert {choice.rpartition("=")[2] for choice in products.choices} == {name}
    again = Products("timed", products.choices, timer=lambda *product: pytest.fail("timed again"), least_macs=0)
    layer, inputs, upstream = setting(7, 5, 3)
    expected = in_float64(layer, inputs, upstream)
    assert_near(results(in_one(products=again, limits=limits), layer, inputs, upstream), expected)
