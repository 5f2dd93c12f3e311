"""DeLong's variance against its definition by pairs, and its intervals against what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ctrlab.errors import DataError
from ctrlab.evaluation.delong import auc_difference, auc_interval
from ctrlab.evaluation.metrics import auc


def by_pairs(labels, *scores):
    """AUCs (k,) and their covariance (k, k) from the kernel of every pair, as the paper writes them (eq. 3 to 6)."""
    kernels = []
    for score in scores:
        positive, negative = score[labels == 1].astype(float), score[labels == 0].astype(float)
        kernels.append((positive[:, None] > negative[None]) + 0.5 * (positive[:, None] == negative[None]))
    v10, v01 = np.stack([kernel.mean(1) for kernel in kernels]), np.stack([kernel.mean(0) for kernel in kernels])
    return v10.mean(1), np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]


@st.composite
def rows_of_two_models(draw):
    """At least two rows of each class; scores on a coarse grid tie often."""
    n = draw(st.integers(4, 50))
    labels = draw(arrays(np.uint8, n, elements=st.integers(0, 1)))
    labels[:4] = 0, 1, 0, 1
    grid = st.integers(-3, 3).map(lambda value: value / 2)
    return labels, draw(arrays(np.float32, n, elements=grid)), draw(arrays(np.float32, n, elements=grid))


@settings(deadline=None)
@given(rows_of_two_models())
def test_variances_are_those_of_the_definition(rows):
    labels, a, b = rows
    aucs, covariance = by_pairs(labels, a, b)
    for score, value, variance in zip((a, b), aucs, np.diag(covariance), strict=True):
        found = auc_interval(labels, score)
        assert found.estimate == pytest.approx(value, abs=1e-12) == pytest.approx(auc(labels, score), abs=1e-12)
        assert found.standard_error**2 == pytest.approx(variance, rel=1e-9, abs=1e-14)
    difference = auc_difference(labels, a, b)
    assert difference.estimate == pytest.approx(aucs[0] - aucs[1], abs=1e-12)
    expected = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert difference.standard_error**2 == pytest.approx(expected, rel=1e-9, abs=1e-14)


def clicks_and_scores(seed, n=2000, noise=(1.0, 1.0), shared=0.0):
    random = np.random.default_rng(seed)
    truth = random.normal(size=n)
    labels = (random.random(n) < 1 / (1 + np.exp(1 - truth))).astype(np.uint8)
    common = random.normal(size=n)
    return labels, *(truth + level * (shared * common + (1 - shared) * random.normal(size=n)) for level in noise)


def test_intervals_cover_the_truth_as_often_as_they_say():
    truth = np.mean([auc(*clicks_and_scores(seed, 20_000)[:2]) for seed in range(1000, 1020)])
    found = [auc_interval(*clicks_and_scores(seed)[:2]) for seed in range(300)]
    assert 0.91 <= np.mean([interval.low <= truth <= interval.high for interval in found]) <= 0.985


def test_models_that_are_alike_are_told_apart_only_by_chance():
    found = [auc_difference(*clicks_and_scores(seed, shared=0.8)) for seed in range(300)]
    assert 0.91 <= np.mean([interval.low <= 0 <= interval.high for interval in found]) <= 0.985


def test_a_paired_interval_is_narrower_than_two_of_their_own():
    labels, a, b = clicks_and_scores(0, shared=0.9)
    alone = np.hypot(auc_interval(labels, a).standard_error, auc_interval(labels, b).standard_error)
    assert auc_difference(labels, a, b).standard_error < 0.5 * alone


def test_a_model_against_itself_differs_by_nothing():
    labels, scores, _ = clicks_and_scores(1)
    same = auc_difference(labels, scores, 3 * scores - 1)  # the order counts, not the scale
    assert (same.estimate, same.standard_error, same.low, same.high) == (0, 0, 0, 0)


def test_other_levels_and_swapped_models():
    labels, a, b = clicks_and_scores(2, noise=(0.5, 1.0))
    wide, narrow = auc_difference(labels, a, b, level=0.99), auc_difference(labels, a, b, level=0.8)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert auc_difference(labels, b, a).low == pytest.approx(-auc_difference(labels, a, b).high)
    assert narrow.to_dict()["level"] == 0.8


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1, 1], [0.1, 0.2, 0.3], "all 3 labels are 1"),
        ([1, 0, 1, 0], [0.1, 0.2, np.nan, 0.3], "the predictions contain nan"),
        ([1, 0], [0.1, 0.2, 0.3], "of one length"),
    ],
)
def test_rows_that_give_no_interval_are_refused(labels, scores, message):
    with pytest.raises(DataError, match=message):
        auc_interval(labels, scores)


def few_clicks(seed, clicks, others=500, shift=1.5):
    random = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [clicks, others]).astype(np.uint8)
    truth = random.normal(size=clicks + others) + shift * labels
    return labels, truth, truth + 0.5 * random.normal(size=len(truth)), truth + 0.5 * random.normal(size=len(truth))


@settings(deadline=None)
@given(rows_of_two_models())
def test_intervals_stay_within_the_range_of_what_they_estimate(rows):
    labels, a, b = rows
    alone, change = auc_interval(labels, a), auc_difference(labels, a, b)
    assert 0 <= alone.low <= alone.estimate <= alone.high <= 1
    assert -1 <= change.low <= change.estimate <= change.high <= 1


@pytest.mark.parametrize("clicks", [1, 4, 15, 29, 31, 60])
def test_intervals_of_few_clicks_cover_the_truth_at_least_as_often_as_they_say(clicks):
    truth = 0.5 * (1 + math.erf(1.5 / 2))  # P(N(1.5, 1) > N(0, 1))
    found = [auc_interval(*few_clicks(seed, clicks)[:2]) for seed in range(300)]
    assert np.mean([interval.low <= truth <= interval.high for interval in found]) >= 0.92


@pytest.mark.parametrize("clicks", [4, 10, 25])
def test_differences_on_few_clicks_are_seldom_taken_for_real(clicks):
    found = [auc_difference(few[0], few[2], few[3]) for few in (few_clicks(seed, clicks) for seed in range(300))]
    assert np.mean([interval.low <= 0 <= interval.high for interval in found]) >= 0.92


def test_one_click_gives_an_interval_that_says_how_little_it_tells():
    labels, scores, worse = [1, 0, 0, 0, 0], [0.5, 0.1, 0.2, 0.3, 0.9], [0.5, 0.1, 0.2, 0.8, 0.9]
    alone = auc_interval(labels, scores)
    assert alone.estimate == 0.75 and alone.high - alone.low > 0.8 and alone.standard_error == 0.5
    change = auc_difference(labels, scores, worse)
    assert change.estimate == 0.25 and (change.low, change.high) == (-1, 1)


def test_a_perfect_order_of_many_rows_is_not_taken_for_certain():
    labels, _, _, _ = few_clicks(0, 200)
    perfect = auc_interval(labels, labels.astype(float))
    assert perfect.estimate == perfect.high == 1 and 0.97 < perfect.low < 1


def test_intervals_of_mirrored_scores_and_labels_mirror_each_other():
    for clicks in (12, 200):
        labels, scores, _, _ = few_clicks(5, clicks)
        found, mirrored = auc_interval(labels, scores), auc_interval(labels, -scores)
        assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)
