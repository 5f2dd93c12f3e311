import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.data import batches
from ctrlab.data.batches import iterate_batches, num_batches
from ctrlab.data.dataset import Split


def split_of(num_rows: int) -> Split:
    """Rows that can be told apart in each array."""
    rows = np.arange(num_rows)
    return Split(
        "train", np.stack([rows, rows * 2], 1).astype(np.int32), rows[:, None].astype(np.float32), (rows % 2).astype(np.uint8)
    )


def rows_of(stream) -> list[list[int]]:
    emitted = []
    for fields, labels in stream:
        assert fields.ids.dtype == np.int32
        assert fields.values.dtype == labels.dtype == np.float32
        assert fields.ids.flags.writeable
        assert fields.ids.flags.c_contiguous
        np.testing.assert_array_equal(fields.ids[:, 1], fields.ids[:, 0] * 2)
        np.testing.assert_array_equal(fields.values[:, 0], fields.ids[:, 0])
        np.testing.assert_array_equal(labels, fields.ids[:, 0] % 2)
        emitted.append(fields.ids[:, 0].tolist())
    return emitted


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Many runs from few rows."""
    monkeypatch.setattr(batches, "CHUNK_ROWS", 8)
    monkeypatch.setattr(batches, "BUFFER_CHUNKS", 3)


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(0, 150),
    batch_size=st.integers(1, 70),
    shuffle=st.booleans(),
    seed=st.integers(0, 5),
    start=st.integers(0, 8),
    max_rows=st.one_of(st.none(), st.integers(0, 160)),
)
def test_every_row_comes_once_and_a_resumed_iteration_gives_the_same_batches(
    num_rows, batch_size, shuffle, seed, start, max_rows
):
    split = split_of(num_rows)

    def run(start_batch=0):
        return rows_of(iterate_batches(split, batch_size, shuffle=shuffle, seed=seed, start_batch=start_batch, max_rows=max_rows))

    whole = run()
    wanted = num_rows if max_rows is None else min(num_rows, max_rows)
    everything = [row for batch in whole for row in batch]
    assert len(everything) == len(set(everything)) == wanted
    assert all(len(batch) == batch_size for batch in whole[:-1])
    assert len(whole) == num_batches(split, batch_size, max_rows)
    if not shuffle:
        assert everything == list(range(wanted))
    assert run() == whole
    assert run(start_batch=start) == whole[start:]


def test_seeds_give_different_orders_and_rows_move_far(monkeypatch):
    split = split_of(5000)
    first, second = (np.concatenate(rows_of(iterate_batches(split, 100, shuffle=True, seed=seed))) for seed in (0, 1))
    assert (first != second).mean() > 0.9
    assert abs(np.corrcoef(first, np.arange(5000))[0, 1]) < 0.1


def test_a_small_split_is_shuffled_fully(monkeypatch):
    monkeypatch.setattr(batches, "CHUNK_ROWS", 1024)
    monkeypatch.setattr(batches, "BUFFER_CHUNKS", 256)
    order = np.concatenate(rows_of(iterate_batches(split_of(4000), 512, shuffle=True, seed=3)))
    assert (np.diff(order) == 1).mean() < 0.01
