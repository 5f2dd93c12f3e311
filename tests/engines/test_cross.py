"""engines/fast/cross.py against the layers one by one, in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.engines.fast.cross import cross
from tests.support.engines import in_parts


def layer_by_layer(x0, weights, biases):
    """DCN, eq. 3."""
    x = x0
    for weight, bias in zip(weights, biases, strict=True):
        x = x0 * (x @ weight).unsqueeze(1) + bias + x
    return x


def on_a_line(x0, weights, biases, threads=1):
    summed = biases.cumsum(0)
    before = torch.cat([torch.zeros_like(summed[:1]), summed[:-1]])
    return cross(x0, weights, (before * weights).sum(1), summed[-1], in_parts(threads))


def operands(rows, width, layers, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, width), (layers, width), (layers, width))
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) / width**0.5 for shape in shapes]


def with_gradients(function, tensors, dtype):
    leaves = [tensor.to(dtype).requires_grad_() for tensor in tensors]
    out = function(*leaves)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@settings(deadline=None, max_examples=40)
@given(
    rows=st.sampled_from([1, 2, 255, 256, 257, 700]), width=st.integers(1, 40), layers=st.integers(1, 5), seed=st.integers(0, 99)
)
def test_outputs_and_all_gradients_are_those_of_the_layers_one_by_one(rows, width, layers, seed):
    tensors = operands(rows, width, layers, seed)
    found, expected = with_gradients(on_a_line, tensors, torch.float32), with_gradients(layer_by_layer, tensors, torch.float64)
    for ours, oracle in zip(found, expected, strict=True):
        # What is summed over the rows may cancel out.
        assert (ours.double() - oracle).norm() <= 1e-4 * (oracle.norm() + rows)


def test_without_gradients_torch_computes_the_same():
    tensors = operands(300, 24, 3, 0)
    compiled = with_gradients(on_a_line, tensors, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(on_a_line(*(tensor.float() for tensor in tensors)), compiled[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("threads", [2, 3])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    tensors = operands(2000, 33, 3, 1)
    expected = with_gradients(on_a_line, tensors, torch.float32)
    found = with_gradients(lambda *given: on_a_line(*given, threads=threads), tensors, torch.float32)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
