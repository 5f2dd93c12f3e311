"""engines/fast/pairs.py against a loop over pairs and autograd."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.engines.fast.batch_vectors import BatchVectors
from ctrlab.engines.fast.pairs import sum_of_pairs
from ctrlab.kernels.parts import in_one_part
from tests.support.engines import context


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_values_and_gradients_are_those_of_a_loop_over_pairs(rows, vectors, width, seed):
    torch.manual_seed(seed)
    e, upstream = torch.randn(rows, vectors, width, requires_grad=True), torch.randn(rows, width)
    found = sum_of_pairs(e, in_one_part)
    (gradient,) = torch.autograd.grad(found, e, upstream)
    expected = torch.zeros(rows, width)
    for left in range(vectors):
        for right in range(left + 1, vectors):
            expected = expected + e[:, left] * e[:, right]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sum_of_pairs(e.detach(), in_one_part), expected.detach(), atol=1e-5, rtol=1e-4)
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
        batch = BatchVectors(context(sparse=sparse), ids, offsets, table, numbers, numeric, with_pairs=linked)
        pairs = batch.pairs if linked else sum_of_pairs(batch.vectors * 1.0, in_one_part)
        loss = (pairs * of_pairs).sum()
        if also_themselves:
            loss = loss + (batch.vectors * of_vectors).sum()
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
        batch = BatchVectors(context(), ids, offsets, table, values, numeric, with_pairs=linked)
        pairs = batch.pairs if linked else sum_of_pairs(batch.vectors * 1.0, in_one_part)
        (pairs * upstream).sum().backward()
        gradients.append((values.grad, numeric.grad))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_pairs", [True, False])
def test_a_frozen_table_leaves_numeric_vectors_their_gradient(with_pairs):
    batch = BatchVectors(
        context(), torch.zeros(4, 1, dtype=torch.int64), torch.tensor([0]), torch.ones(2, 3), torch.ones(4, 1),
        torch.ones(1, 3, requires_grad=True), with_pairs=with_pairs,
    )  # fmt: skip
    batch.pairs.sum().backward()
    assert batch.numeric.grad.tolist() == [[4.0, 4.0, 4.0]]


def test_the_gradients_of_pairs_and_of_vectors_are_summed_by_row_in_one_pass():
    passes, in_parts = [], context()

    def counted(loop, total, *, elements=None):
        passes.append(total)
        loop(0, total)

    in_parts.parts = counted
    ids, table = torch.randint(0, 5, (8, 2)), torch.randn(10, 4, requires_grad=True)
    batch = BatchVectors(in_parts, ids, torch.tensor([0, 5]), table, with_pairs=True)
    loss = batch.pairs.sum() + batch.vectors.square().sum()
    passes.clear()
    loss.backward()
    assert passes == [ids.numel()]


@pytest.mark.parametrize("read", [True, False])
def test_a_step_that_is_over_keeps_nothing_alive(read):
    table = torch.randn(10, 4, requires_grad=True)
    batch = BatchVectors(context(), torch.randint(0, 10, (6, 1)), torch.tensor([0]), table, with_pairs=read)
    out = batch.pairs.sum() if read else batch.vectors.sum()
    out.backward()
    kept = [weakref.ref(each) for each in (batch, batch.rows, batch.numbers)]
    gc.disable()
    try:
        del batch, out
        assert [each() for each in kept] == [None, None, None]
    finally:
        gc.enable()
