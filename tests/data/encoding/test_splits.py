import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.data.configs import SplitConfig
from ctrlab.data.encoding.splits import STRATUM_ROWS, SplitAssigner
from ctrlab.data.encoding.time_split import TimeCounts, time_borders

SHARES = {"train": 0.6, "valid": 0.2, "test": 0.15, "finetune": 0.05}


def assign(config: SplitConfig, labels: np.ndarray, block_rows: int) -> np.ndarray:
    assigner = SplitAssigner(config)
    return np.concatenate([assigner.assign(labels[start : start + block_rows]) for start in range(0, len(labels), block_rows)])


@settings(max_examples=20, deadline=None)
@given(method=st.sampled_from(["random", "stratified"]), seed=st.integers(0, 1000), block_rows=st.integers(1, 3000))
def test_splits_depend_on_the_seed_and_not_on_the_block_size(method, seed, block_rows):
    labels = (np.arange(2500) % 4 == 0).astype(np.uint8)
    config = SplitConfig(method=method, seed=seed, **SHARES)
    parts = assign(config, labels, 2500)
    np.testing.assert_array_equal(assign(config, labels, block_rows), parts)
    assert (assign(config.replace(seed=seed + 1), labels, 2500) != parts).any()


@pytest.mark.parametrize("seed", range(3))
def test_random_splits_have_their_shares(seed):
    parts = assign(SplitConfig(seed=seed, **SHARES), np.zeros(200_000, np.uint8), 50_000)
    np.testing.assert_allclose(np.bincount(parts) / len(parts), [0.6, 0.2, 0.15, 0.05], atol=0.004)


def test_stratified_splits_have_exact_shares_of_each_class():
    labels = (np.arange(400 * STRATUM_ROWS) % 4 == 0).astype(np.uint8)
    parts = assign(SplitConfig(method="stratified", **SHARES), labels, 777)
    for label in (0, 1):
        mine = parts[labels == label]
        np.testing.assert_allclose(np.bincount(mine) / len(mine), [0.6, 0.2, 0.15, 0.05], atol=1e-9)


def test_odd_shares_are_met_without_bias_by_the_stratified_split():
    config = SplitConfig(method="stratified", train=0.777, valid=0.123, test=0.1)
    parts = assign(config, np.zeros(200_000, np.uint8), 50_000)
    np.testing.assert_allclose(np.bincount(parts) / len(parts), [0.777, 0.123, 0.1], atol=5e-4)


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_a_split_without_a_share_gets_no_row(method):
    config = SplitConfig(method=method, train=0.1 + 0.2, valid=0.7, test=0.0)
    assert set(assign(config, np.zeros(100_000, np.uint8), 100_000)) == {0, 1}


@settings(max_examples=100, deadline=None)
@given(times=st.lists(st.integers(-50, 50), min_size=1, max_size=200), block_rows=st.integers(1, 60))
def test_a_split_by_time_cuts_between_times_and_in_their_order(times, block_rows):
    config = SplitConfig(method="time", time_column="t", **SHARES)
    times = np.array(times, np.int64)
    counts = TimeCounts()
    for start in range(0, len(times), block_rows):
        counts.add(times[start : start + block_rows])
    assigner = SplitAssigner(config, counts.borders(config))
    parts = np.concatenate(
        [
            assigner.assign(np.zeros(len(block), np.uint8), block)
            for block in np.array_split(times, range(block_rows, len(times), block_rows))
        ]
    )
    # Train, then finetune, valid, test; and no time is in two parts.
    order = np.array([0, 2, 3, 1])[parts]
    by_time = np.lexsort((order, times))
    assert (np.diff(order[by_time]) >= 0).all()
    assert len(set(zip(times.tolist(), parts.tolist(), strict=True))) == len(set(times.tolist()))


def test_shares_of_a_split_by_time_are_met_where_times_allow():
    config = SplitConfig(method="time", time_column="t", **SHARES)
    borders = time_borders(np.arange(1000), np.ones(1000, np.int64), config)
    assert borders.tolist() == [599, 649, 849]


def test_an_empty_split_stays_empty_when_splitting_by_time():
    config = SplitConfig(method="time", time_column="t", train=0.5, valid=0.5, test=0.0)
    borders = time_borders(np.arange(10), np.ones(10, np.int64), config)
    parts = SplitAssigner(config, borders).assign(np.zeros(10, np.uint8), np.arange(10))
    assert np.bincount(parts).tolist() == [5, 5]


def test_times_beyond_the_limit_lose_resolution_without_mixing_splits(monkeypatch):
    monkeypatch.setattr("ctrlab.data.encoding.time_split.MAX_DISTINCT_TIMES", 100)
    config = SplitConfig(method="time", time_column="t", **SHARES)
    times = np.random.default_rng(0).permutation(5000).astype(np.int64)
    counts = TimeCounts()
    for block in np.array_split(times, 9):
        counts.add(block)
    parts = SplitAssigner(config, counts.borders(config)).assign(np.zeros(5000, np.uint8), times)
    np.testing.assert_allclose(np.bincount(parts) / 5000, [0.6, 0.2, 0.15, 0.05], atol=0.03)
    assert times[parts == 0].max() < times[parts == 3].min() <= times[parts == 3].max() < times[parts == 1].min()
