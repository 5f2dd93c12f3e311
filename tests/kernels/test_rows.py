"""kernels/rows.py against numpy loops."""

import numpy as np
import pytest
from hypothesis import given, settings

from ctrlab.kernels import rows
from tests.support.engines import in_parts
from tests.support.look_ups import SHAPES, batch


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


@pytest.mark.parametrize("threads", [2, 3])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    rng = np.random.default_rng(3)
    ids, offsets = rng.integers(0, 50, (9000, 2)), np.array([0, 50], np.int64)
    grad = rng.standard_normal((9000, 2, 3)).astype(np.float32)
    groups = rows.group_rows(ids, offsets, np.zeros(100, np.int32))
    summed = rows.sum_by_row(grad, groups, 2, parts=in_parts(threads))
    oracle = np.zeros((100, 3), np.float32)
    for place, row in enumerate((ids + offsets).ravel()):
        oracle[row] += grad.reshape(-1, 3)[place]
    np.testing.assert_allclose(summed, oracle[groups.rows], atol=2e-4)
    again = rows.sum_by_row(grad, groups, 2)
    assert np.array_equal(summed, again)


@pytest.mark.parametrize("bad", [-1, 10])
def test_an_id_outside_of_its_table_is_refused_and_nothing_else_is_read(bad):
    ids, offsets = np.array([[0, 1], [bad, 0]]), np.array([0, 5])
    with pytest.raises(IndexError, match="outside of its table"):
        rows.gather(ids, offsets, np.zeros((10, 3), np.float32), np.empty((2, 2, 3), np.float32))
    with pytest.raises(IndexError, match="outside of its table"):
        rows.sum_of_rows(ids, offsets, np.zeros((10, 1), np.float32))
    with pytest.raises(IndexError, match="outside of its table"):
        rows.group_rows(ids, offsets, np.zeros(10, np.int32))
