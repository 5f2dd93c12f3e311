"""kernels/rows.py, groups.py and lookup.py against numpy loops and torch's own operations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ctrlab.kernels import groups as groups_
from ctrlab.kernels import lookup, rows

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(1, 19), st.integers(0, 2**31))


def batch(num_rows, fields, seed):
    rng = np.random.default_rng(seed)
    dims = rng.integers(1, 12, fields)
    offsets = np.concatenate([[0], np.cumsum(dims)[:-1]]).astype(np.int64)
    ids = np.stack([rng.integers(0, dim, num_rows) for dim in dims], axis=1)
    return ids, offsets, int(dims.sum()), rng


@settings(max_examples=30, deadline=None)
@given(SHAPES)
def test_groups_name_every_occurrence_once_whatever_the_marker_holds(shape):
    num_rows, fields, _, seed = shape
    ids, offsets, size, rng = batch(num_rows, fields, seed)
    marker = rng.integers(-5, 100, size).astype(np.int32)
    groups = rows.group_rows(ids, offsets, marker)
    table_rows = (ids + offsets).ravel()
    assert groups.rows.tolist() == sorted(set(table_rows.tolist()))
    for row, start, stop in zip(groups.rows, groups.starts[:-1], groups.starts[1:], strict=True):
        assert groups.order[start:stop].tolist() == np.flatnonzero(table_rows == row).tolist()


def test_rows_of_a_table_of_millions_rise_as_well():
    rng = np.random.default_rng(0)
    ids, size = rng.integers(0, 5_000_000, (3000, 2), dtype=np.int32), 5_000_000
    groups = rows.group_rows(ids, np.zeros(2, np.int64), np.zeros(size, np.int32))
    assert np.array_equal(groups.rows, np.unique(ids))
    assert np.array_equal(np.repeat(groups.rows, np.diff(groups.starts)), ids.ravel()[groups.order])


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.booleans())
def test_vectors_and_all_their_gradients_are_those_of_torchs_embedding(shape, sparse):
    num_rows, fields, width, seed = shape
    ids, offsets, size, _ = batch(num_rows, fields, seed)
    torch.manual_seed(seed % 1000)
    ids, offsets = torch.from_numpy(ids), torch.from_numpy(offsets)
    values, upstream = torch.randn(num_rows, 2), torch.randn(num_rows, fields + 2, width)
    found, expected = [], []
    for compiled, into in ((True, found), (False, expected)):
        torch.manual_seed(seed % 1000)
        weight, numeric = torch.randn(size, width, requires_grad=True), torch.randn(2, width, requires_grad=True)
        if compiled:
            out = lookup.look_up_fields(ids, offsets, weight, values, numeric, sparse=sparse)
        else:
            out = torch.cat([functional.embedding(ids + offsets, weight), values.unsqueeze(2) * numeric], dim=1)
        out.backward(upstream)
        assert weight.grad.is_sparse == (compiled and sparse)
        into += [out.detach(), weight.grad.to_dense() if weight.grad.is_sparse else weight.grad, numeric.grad]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(SHAPES)
def test_sums_over_fields_and_their_gradient_are_torchs(shape):
    num_rows, fields, _, seed = shape
    ids, offsets, size, _ = batch(num_rows, fields, seed)
    ids, offsets, upstream = torch.from_numpy(ids), torch.from_numpy(offsets), torch.linspace(-1, 1, num_rows)
    weight = torch.linspace(-2, 2, size).unsqueeze(1).requires_grad_()
    summed = lookup.sum_fields(ids, offsets, weight, sparse=True)
    summed.backward(upstream)
    oracle = weight.detach().clone().requires_grad_()
    expected = functional.embedding(ids + offsets, oracle).sum(dim=(1, 2))
    expected.backward(upstream)
    torch.testing.assert_close(summed, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weight.grad.to_dense(), oracle.grad, atol=1e-5, rtol=1e-5)


def test_a_sparse_gradient_is_coalesced_and_rising_so_that_nothing_sorts_it_again():
    weight = torch.randn(9, 2, requires_grad=True)
    lookup.look_up_rows(torch.tensor([[7, 2], [7, 0]]), weight, sparse=True).sum().backward()
    gradient = weight.grad.coalesce()
    assert gradient.indices().tolist() == [[0, 2, 7]]
    assert gradient.values()[:, 0].tolist() == [1.0, 1.0, 2.0]


def test_two_tables_read_by_the_same_ids_share_one_grouping():
    ids, offsets = torch.randint(0, 5, (6, 2)), torch.tensor([0, 5])
    first = groups_.grouped(ids, offsets, 10)
    assert groups_.grouped(ids, offsets, 10) is first
    assert groups_.grouped(ids.clone(), offsets, 10) is not first
    assert groups_.grouped(ids, torch.tensor([0, 6]), 11) is not first


def test_the_next_batch_is_grouped_ahead_as_the_last_one_was():
    ids, following, offsets = torch.randint(0, 5, (6, 2)), torch.randint(0, 5, (7, 2)), torch.tensor([0, 5])
    groups_.grouped(ids, offsets, 10)
    groups_.group_ahead(following, like=ids)
    (ahead,) = groups_._groups.of(following)
    assert groups_.grouped(following, offsets, 10) is ahead.groups
    expected = rows.group_rows(following.numpy(), offsets.numpy(), np.zeros(10, np.int32))
    for found, wanted in zip(ahead.groups.result(), expected, strict=True):
        assert np.array_equal(found, wanted)
    del following, ahead
    groups_.grouped(ids, offsets, 10)
    assert len(groups_._groups.known) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    rng = np.random.default_rng(3)
    ids, offsets = rng.integers(0, 50, (9000, 2)), np.array([0, 50], np.int64)
    grad = rng.standard_normal((9000, 2, 3)).astype(np.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        groups = rows.group_rows(ids, offsets, np.zeros(100, np.int32))
        summed = rows.sum_by_row(grad, groups, 2)
    finally:
        torch.set_num_threads(before)
    oracle = np.zeros((100, 3), np.float32)
    for place, row in enumerate((ids + offsets).ravel()):
        oracle[row] += grad.reshape(-1, 3)[place]
    np.testing.assert_allclose(summed, oracle[groups.rows], atol=2e-4)
    again = rows.sum_by_row(grad, groups, 2)
    assert np.array_equal(summed, again)


def test_other_devices_and_precisions_take_the_same_steps_in_torch():
    ids, offsets = torch.randint(0, 5, (6, 2)), torch.tensor([0, 5])
    upstream = torch.randn(6, 2, 3)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        weight = torch.zeros(10, 3, dtype=dtype, requires_grad=True)
        lookup.look_up_fields(ids, offsets, weight, sparse=True).backward(upstream.to(dtype))
        assert weight.grad.is_sparse
        gradients.append(weight.grad.to_dense().float())
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bad", [-1, 10])
def test_an_id_outside_of_its_table_is_refused_and_nothing_else_is_read(bad):
    ids, offsets = torch.tensor([[0, 1], [bad, 0]]), torch.tensor([0, 5])
    wide, narrow = torch.zeros(10, 3, requires_grad=True), torch.zeros(10, 1, requires_grad=True)
    with pytest.raises(IndexError, match="outside of its table"):
        lookup.look_up_fields(ids, offsets, wide, sparse=True)
    with pytest.raises(IndexError, match="outside of its table"):
        lookup.sum_fields(ids, offsets, narrow, sparse=True)
    with pytest.raises(IndexError, match="outside of its table"):
        rows.group_rows(ids.numpy(), offsets.numpy(), np.zeros(10, np.int32))
