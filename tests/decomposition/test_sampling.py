import numpy as np
import pytest
import torch

from ctrlab.decomposition.covariance import Moments
from ctrlab.decomposition.sampling import excess_error, is_check


def _layer(rows):
    return {"layer": Moments(rows.shape[1]).update(torch.tensor(rows))}


@pytest.mark.parametrize("heavy_tailed", [False, True])
def test_the_estimate_is_near_the_true_excess_of_directions_from_that_many_rows(heavy_tailed):
    random = np.random.default_rng(0)
    scales, num_rows, estimates, truths = 0.9 ** np.arange(30), 600, [], []
    truth = scales**2 * (5 / 3 if heavy_tailed else 1)
    for _ in range(12):
        draws = random.standard_t(5, (num_rows, 30)) if heavy_tailed else random.normal(size=(num_rows, 30))
        rows = draws * scales
        estimates.append(excess_error(_layer(rows[::2]), _layer(rows[1::2])))
        directions = np.linalg.eigh(np.cov(rows.T))[1][:, ::-1]
        kept = (directions**2 * truth[:, None]).sum(0).cumsum() / truth.sum()
        ranks = [int(np.searchsorted(truth.cumsum() / truth.sum(), variance)) for variance in (0.9, 0.95, 0.99)]
        truths.append(max((1 - kept[rank]) / (1 - (truth.cumsum() / truth.sum())[rank]) - 1 for rank in ranks))
    assert 0.7 < np.mean(estimates) / np.mean(truths) < 2.0


def test_more_rows_leave_less_excess_and_looks_become_rare():
    random = np.random.default_rng(1)
    rows = random.normal(size=(8000, 20)) * 0.8 ** np.arange(20)
    few, many = (excess_error(_layer(rows[:n:2]), _layer(rows[1:n:2])) for n in (200, 8000))
    assert many < few / 10
    assert [number for number in range(1, 70) if is_check(number)] == [4, 8, 16, 32, 64]


def test_outputs_that_never_vary_need_no_more_rows_and_no_rows_are_never_enough():
    assert excess_error(_layer(np.ones((50, 3))), _layer(np.ones((50, 3)))) == 0.0
    assert excess_error({"a": Moments(3)}, {"a": Moments(3)}) == float("inf")
