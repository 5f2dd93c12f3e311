"""engines/fast/tables.py and grouping.py against torch's own operations."""

import threading

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ctrlab.engines.fast.batch_vectors import BatchVectors
from ctrlab.engines.fast.grouping import GroupingAhead, GroupingOnDemand
from ctrlab.engines.fast.tables import LookedUp
from ctrlab.models.layers import FusedTable, LookupTable
from tests.support.engines import context, fast_layer, twin
from tests.support.look_ups import SHAPES, batch


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
            out = BatchVectors(context(sparse=sparse), ids, offsets, weight, values, numeric).vectors
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
    ids, offsets, _, _ = batch(num_rows, fields, seed)
    dims = np.diff(np.append(offsets, offsets[-1] + 12)).tolist()
    table, ids, upstream = FusedTable(dims, 1), torch.from_numpy(ids), torch.linspace(-1, 1, num_rows)
    fast = twin(table, sparse=True)
    found, expected = fast.sum(ids), table.sum(ids)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    (mine,) = torch.autograd.grad(found, table.table.weight, upstream)
    (theirs,) = torch.autograd.grad(expected, table.table.weight, upstream)
    torch.testing.assert_close(mine.to_dense(), theirs, atol=1e-5, rtol=1e-5)


def test_a_sparse_gradient_is_coalesced_and_sorted_so_that_nothing_sorts_it_again():
    table = LookupTable(9, 2)
    twin(table, sparse=True)(torch.tensor([[7, 2], [7, 0]])).sum().backward()
    gradient = table.weight.grad
    assert gradient._indices().tolist() == [[0, 2, 7]]
    assert gradient._values()[:, 0].tolist() == [1.0, 1.0, 2.0]


def test_the_gradient_of_looked_up_vectors_is_whole_whoever_reads_them():
    """Pairs and a linear layer read the distinct rows: the node that all gradients pass has the sum of them."""
    table, layer = torch.randn(10, 4, requires_grad=True), nn.Linear(8, 3)
    lookup = BatchVectors(context(), torch.randint(0, 5, (6, 2)), torch.tensor([0, 5]), table)
    fast = LookedUp(lookup, flat=True).through(fast_layer(layer))
    loss = lookup.pairs.sum() + fast.square().sum() + lookup.vectors.cos().sum()
    (found,) = torch.autograd.grad(loss, lookup.rows)
    e = functional.embedding(lookup.ids + lookup.offsets, table)
    plain = (e[:, 0] * e[:, 1]).sum() + layer(e.flatten(1)).square().sum() + e.cos().sum()
    (expected,) = torch.autograd.grad(plain, table)
    torch.testing.assert_close(found, expected[lookup.groups.rows], atol=1e-5, rtol=1e-4)


def test_two_tables_read_by_the_same_ids_share_one_grouping():
    ids, offsets, grouping = torch.randint(0, 5, (6, 2)), torch.tensor([0, 5]), GroupingAhead()
    first = grouping.of(ids, offsets, 10)
    assert grouping.of(ids, offsets, 10) is first
    assert grouping.of(ids.clone(), offsets, 10) is not first
    assert grouping.of(ids, torch.tensor([0, 6]), 11) is not first
    grouping.close()


def test_the_next_batch_is_grouped_ahead_as_the_last_one_was():
    ids, following, offsets, grouping = (
        torch.randint(0, 5, (6, 2)),
        torch.randint(0, 5, (7, 2)),
        torch.tensor([0, 5]),
        GroupingAhead(),
    )
    grouping.of(ids, offsets, 10)
    grouping.prefetch(following, like=ids)
    found = grouping.of(following, offsets, 10)
    assert grouping.of(following, offsets, 10) is found
    for mine, wanted in zip(found, GroupingOnDemand().of(following, offsets, 10), strict=True):
        assert np.array_equal(mine, wanted)
    grouping.close()
    assert not any(thread.name.startswith("ctrlab-grouping") for thread in threading.enumerate())
