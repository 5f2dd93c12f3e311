"""Soft labels and impressions: every metric is that of the table in which each row is repeated by its weights."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ctrlab.errors import DataError
from ctrlab.evaluation.delong import auc_difference, auc_interval, log_loss_difference
from ctrlab.evaluation.metrics import auc, calibration, log_loss, metrics_of, sigmoid


def expanded(labels, *scores):
    """Labels of 0 and 1, and the scores, of the table with a row for every click and every non-click."""
    clicks, others = labels[:, 0].astype(int), labels[:, 1].astype(int)
    repeated = [np.concatenate([np.repeat(score, clicks), np.repeat(score, others)]) for score in scores]
    return np.repeat([1, 0], [clicks.sum(), others.sum()]), *repeated


@st.composite
def counted_rows(draw):
    """Clicks and non-clicks of each row, and scores of two models that tie often."""
    n = draw(st.integers(2, 30))
    labels = draw(arrays(np.float32, (n, 2), elements=st.integers(0, 5)))
    labels[0] = (draw(st.integers(1, 40)), 1)
    grid = st.integers(-3, 3).map(lambda value: value / 2)
    return labels, *(draw(arrays(np.float32, n, elements=grid)) for _ in range(2))


@settings(max_examples=40)
@given(counted_rows())
def test_metrics_are_those_of_the_expanded_table(rows):
    labels, logits, _ = rows
    ours, theirs = metrics_of(labels, logits).to_dict(), metrics_of(*expanded(labels, logits)).to_dict()
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert (auc(labels, logits), log_loss(labels, logits)) == pytest.approx((theirs["auc"], theirs["log_loss"]), rel=1e-9)
    found, wanted = calibration(labels, sigmoid(logits)), calibration(*expanded(labels, sigmoid(logits)))
    np.testing.assert_allclose(found.observed, wanted.observed)
    np.testing.assert_allclose(found.counts, wanted.counts)


@settings(max_examples=40)
@given(counted_rows())
def test_intervals_are_those_of_the_expanded_table(rows):
    labels, one, two = rows
    clicked, first, second = expanded(labels, one, two)
    for ours, theirs in (
        (auc_interval(labels, one), auc_interval(clicked, first)),
        (auc_difference(labels, one, two), auc_difference(clicked, first, second)),
        (log_loss_difference(labels, one, two), log_loss_difference(clicked, first, second)),
    ):
        assert ours.to_dict() == pytest.approx(theirs.to_dict(), rel=1e-6, abs=1e-9)


def test_a_soft_label_is_its_share_of_a_click_and_of_a_non_click():
    logits = np.array([2.0, -1.0], np.float32)
    soft = np.array([[0.75, 0.25], [0.1, 0.9]])
    p = sigmoid(logits)
    shares = soft[:, 0]
    assert log_loss(soft, logits) == pytest.approx(float(-(shares * np.log(p) + (1 - shares) * np.log(1 - p)).mean()))
    # Pairs of a click and a non-click by weight; a row's own pair is a tie.
    wins = 0.75 * (0.25 / 2 + 0.9) + 0.1 * (0.9 / 2)
    assert auc(soft, logits) == pytest.approx(wins / (0.85 * 1.15))


def test_weights_that_are_no_weights_are_refused():
    scores = np.zeros(2, np.float32)
    for labels in ([[1.0, -0.5], [0, 1]], [[math.nan, 1], [1, 0]], [[1.0, 0, 0], [0, 1, 0]]):
        with pytest.raises(DataError, match="weight"):
            auc(np.array(labels), scores)
    with pytest.raises(DataError, match="clicks or non-clicks only"):
        auc(np.array([[1.0, 0], [2, 0]]), scores)
    assert math.isnan(metrics_of(np.array([[1.0, 0], [2, 0]]), scores).auc)
