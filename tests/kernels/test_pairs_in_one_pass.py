"""kernels/pairs.py against a loop over pairs and autograd."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.kernels.pairs import sum_of_pairs


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_values_and_gradients_are_those_of_a_loop_over_pairs(rows, vectors, width, seed):
    torch.manual_seed(seed)
    e, upstream = torch.randn(rows, vectors, width, requires_grad=True), torch.randn(rows, width)
    found = sum_of_pairs(e)
    (gradient,) = torch.autograd.grad(found, e, upstream)
    expected = torch.zeros(rows, width)
    for left in range(vectors):
        for right in range(left + 1, vectors):
            expected = expected + e[:, left] * e[:, right]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sum_of_pairs(e.detach()), expected.detach(), atol=1e-5, rtol=1e-4)
    if vectors > 1:
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, e, upstream)[0], atol=1e-5, rtol=1e-4)
