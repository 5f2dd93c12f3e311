"""kernels/pairs.py against a loop over pairs and autograd."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.kernels.lookup import look_up_fields
from ctrlab.kernels.origin import look_up_of, remembering_look_ups
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


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 60), fields=st.integers(1, 5), values=st.integers(0, 3), width=st.integers(1, 18),
    also_themselves=st.booleans(), sparse=st.booleans(), seed=st.integers(0, 1000),
)  # fmt: skip
def test_of_looked_up_vectors_the_gradients_of_pairs_and_of_the_vectors_themselves_meet_in_the_table(
    rows, fields, values, width, also_themselves, sparse, seed
):
    torch.manual_seed(seed)
    ids, offsets = torch.randint(0, 7, (rows, fields)), 7 * torch.arange(fields)
    numbers = torch.randn(rows, values) if values else None
    of_pairs, of_vectors = torch.randn(rows, width), torch.randn(rows, fields + values, width)
    found = []
    for linked in (True, False):
        torch.manual_seed(seed)
        table = torch.randn(7 * fields, width, requires_grad=True)
        numeric = torch.randn(values, width, requires_grad=True) if values else None
        with remembering_look_ups():
            e = look_up_fields(ids, offsets, table, numbers, numeric, sparse=sparse)
        assert look_up_of(e) is not None
        read = e if linked else e * 1.0
        loss = (sum_of_pairs(read) * of_pairs).sum()
        if also_themselves:
            loss = loss + (read * of_vectors).sum()
        loss.backward()
        found.append([table.grad.to_dense() if sparse else table.grad, *([numeric.grad] if values else [])])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-4)


def test_gradients_of_numeric_values_hold_their_part_of_the_pairs():
    torch.manual_seed(0)
    ids, offsets, table = torch.randint(0, 7, (9, 2)), torch.tensor([0, 7]), torch.randn(14, 5, requires_grad=True)
    upstream, gradients = torch.randn(9, 5), []
    for linked in (True, False):
        values, numeric = torch.ones(9, 3, requires_grad=True), torch.ones(3, 5, requires_grad=True)
        with remembering_look_ups():
            e = look_up_fields(ids, offsets, table, values, numeric, sparse=True)
        (sum_of_pairs(e if linked else e * 1.0) * upstream).sum().backward()
        gradients.append((values.grad, numeric.grad))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("read", [True, False])
def test_a_step_that_is_over_keeps_nothing_alive(read):
    table = torch.randn(10, 4, requires_grad=True)
    with remembering_look_ups():
        e = look_up_fields(torch.randint(0, 10, (6, 1)), torch.tensor([0]), table, sparse=True)
    out = sum_of_pairs(e).sum() if read else e.sum()
    out.backward()
    kept = [weakref.ref(each) for each in (e, look_up_of(e).of_rows)]
    gc.disable()
    try:
        del e, out
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()


def test_a_table_that_changed_since_it_was_read_is_refused():
    table = torch.randn(10, 4, requires_grad=True)
    with remembering_look_ups():
        e = look_up_fields(torch.randint(0, 5, (6, 2)), torch.tensor([0, 5]), table, sparse=True)
    out = sum_of_pairs(e).sum()
    with torch.no_grad():
        table.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_outside_of_training_the_vectors_have_their_whole_gradient():
    table = torch.randn(10, 4, requires_grad=True)
    e = look_up_fields(torch.randint(0, 5, (6, 2)), torch.tensor([0, 5]), table, sparse=True)
    (gradient,) = torch.autograd.grad(sum_of_pairs(e).sum(), e)
    torch.testing.assert_close(gradient, e.flip(1).detach())
