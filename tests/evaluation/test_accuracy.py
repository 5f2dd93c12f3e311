"""evaluation/metrics.py against scikit-learn and against definitions."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as oracle

from ctrlab.data.dataset import Split
from ctrlab.errors import DataError, JobCancelled
from ctrlab.evaluation import metrics
from ctrlab.evaluation.metrics import (
    Metrics,
    auc,
    calibration,
    log_loss,
    metrics_of,
    sigmoid,
)
from ctrlab.evaluation.prediction import evaluate_model, predict_logits
from tests.support.small_models import MemoryDataset, make_model


@st.composite
def labelled_scores(draw, scores=None):
    """At least one row of each class; scores on a coarse grid tie often."""
    n = draw(st.integers(2, 60))
    labels = draw(arrays(np.uint8, n, elements=st.integers(0, 1)))
    labels[0], labels[1] = 0, 1
    grid = st.integers(-3, 3).map(lambda value: value / 2)
    return labels, draw(arrays(np.float32, n, elements=grid if scores is None else scores))


@given(labelled_scores())
def test_auc_equals_the_share_of_pairs_in_order_with_ties_as_half(rows):
    labels, scores = rows
    positive, negative = scores[labels == 1][:, None], scores[labels == 0][None]
    assert auc(labels, scores) == pytest.approx(np.mean((positive > negative) + 0.5 * (positive == negative)), abs=1e-12)


@given(labelled_scores(st.floats(-50, 50, width=32)))
def test_auc_and_log_loss_agree_with_scikit_learn(rows):
    labels, logits = rows
    assert auc(labels, logits) == pytest.approx(oracle.roc_auc_score(labels, logits), abs=1e-12)
    probabilities = sigmoid(logits)
    if probabilities.min() > 1e-7 and probabilities.max() < 1 - 1e-7:  # beyond, probabilities have lost digits that logits keep
        assert log_loss(labels, logits) == pytest.approx(oracle.log_loss(labels, probabilities), rel=1e-6)


@given(labelled_scores(st.floats(-20, 20, width=32)))
def test_auc_is_mirrored_by_negated_scores_and_unmoved_by_order_and_scale(rows):
    labels, scores = rows
    value = auc(labels, scores)
    assert auc(labels, -scores) == pytest.approx(1 - value, abs=1e-12)
    assert auc(labels[::-1], scores[::-1]) == value
    assert auc(labels, scores.astype(np.float64) * 4) == value


def test_auc_of_constant_scores_is_one_half():
    assert auc([0, 1, 1, 0, 0], np.zeros(5)) == 0.5


def test_infinite_scores_are_ordered_like_any_other():
    assert auc([0, 1, 0, 1], [-np.inf, np.inf, 0.0, np.inf]) == 1.0
    assert auc([0, 1], [np.inf, np.inf]) == 0.5


def test_log_loss_stays_exact_at_logits_where_a_probability_would_round_to_one():
    assert log_loss([0, 1], [100.0, -100.0]) == pytest.approx(100.0)
    assert log_loss([1, 0], [100.0, -100.0]) == pytest.approx(np.exp(-100.0), rel=1e-6)


def test_sigmoid_saturates_without_overflow():
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-1e4, 0.0, 1e4], np.float32)).tolist() == [0.0, 0.5, 1.0]


def test_calibration_of_known_bins():
    # Two bins of two rows: predicted 0.25 and 0.75 on average, observed 0.5 and 1.
    found = calibration([0, 1, 1, 1], [0.2, 0.3, 0.7, 0.8], bins=2)
    assert found.predicted.tolist() == pytest.approx([0.25, 0.75])
    assert found.observed.tolist() == [0.5, 1.0]
    assert found.counts.tolist() == [2, 2]
    assert found.error == pytest.approx(0.25)
    assert found.ratio == pytest.approx(2.0 / 3.0)


@given(labelled_scores(st.floats(0, 1, width=32)), st.integers(1, 30))
def test_calibration_bins_account_for_every_row(rows, bins):
    labels, probabilities = rows
    found = calibration(labels, probabilities, bins)
    assert found.counts.sum() == len(labels)
    assert (found.observed * found.counts).sum() == pytest.approx(labels.sum())
    assert found.error == pytest.approx((found.counts * abs(found.predicted - found.observed)).sum() / len(labels))
    assert found.error >= abs(probabilities.mean(dtype=np.float64) - labels.mean()) - 1e-9  # bins can only add to it


def test_probabilities_drawn_from_themselves_are_calibrated():
    random = np.random.default_rng(0)
    probabilities = random.beta(1, 4, 200_000)
    found = calibration(random.random(200_000) < probabilities, probabilities)
    assert found.ratio == pytest.approx(1, abs=0.02)
    assert found.error < 0.01


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1, 2], [0.1, 0.2, 0.3], "labels must be 0 or 1"),
        ([0, 1], [0.1], "of one length"),
        ([0, 1], [0.1, np.nan], "contain nan"),
        ([], [], "no rows"),
    ],
)
def test_unusable_rows_are_refused_with_a_sentence(labels, scores, message):
    for metric in (auc, calibration):
        with pytest.raises(DataError, match=message):
            metric(labels, scores)


@pytest.mark.parametrize("many", [1, 10**9])
@pytest.mark.parametrize(("label", "ratio"), [(0, None), (1, 0.5)])
def test_rows_of_one_class_have_a_log_loss_but_no_auc(label, ratio, many, monkeypatch):
    monkeypatch.setattr(metrics, "MANY_ROWS", many)
    found = metrics_of(np.full(4, label), np.zeros(4, np.float32))
    assert math.isnan(found.auc) and found.log_loss == pytest.approx(math.log(2)) and found.num_clicks == 4 * label
    written = found.to_dict()
    assert written["auc"] is None and written["calibration_ratio"] == ratio
    assert Metrics.from_dict(written).to_dict() == written
    with pytest.raises(DataError, match=f"all 4 labels are {label}"):
        auc(np.full(4, label), np.zeros(4))


def test_logits_given_as_probabilities_are_refused():
    with pytest.raises(DataError, match="between 0 and 1, got -2 to 3"):
        calibration([0, 1], [-2.0, 3.0])


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 500))
def test_batch_size_does_not_change_predictions(batch_size):
    model, split = make_model("deepfm"), MemoryDataset().split("valid")
    found = predict_logits(model, split, batch_size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, predict_logits(model, split), atol=1e-6)


def test_predictions_come_in_the_order_of_the_rows():
    model, data = make_model("dcn"), MemoryDataset()
    with torch.no_grad():
        expected = model(data.fields("valid")).numpy()
    np.testing.assert_allclose(predict_logits(model, data.split("valid"), 64), expected, atol=1e-6)


def test_read_only_maps_are_taken_without_a_warning(tmp_path):
    split = MemoryDataset().split("valid")
    parts = []
    for name in ("ids", "values", "labels"):
        np.save(tmp_path / f"{name}.npy", getattr(split, name))
        parts.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate_model(make_model("dcn"), Split("valid", *parts)) == evaluate_model(make_model("dcn"), split)


def test_evaluation_leaves_the_mode_as_it_was_and_does_not_drop_out():
    model, split = make_model("deepfm", dropout=0.5).train(), MemoryDataset().split("valid")
    first = evaluate_model(model, split)
    assert first == evaluate_model(model, split)
    assert model.training
    assert first.num_rows == len(split)
    assert Metrics.from_dict(first.to_dict()) == first


def test_evaluate_model_agrees_with_scikit_learn():
    model, split = make_model("dcn"), MemoryDataset().split("valid")
    probabilities = sigmoid(predict_logits(model, split))
    found = evaluate_model(model, split)
    assert found.auc == pytest.approx(oracle.roc_auc_score(split.labels, probabilities), abs=1e-12)
    assert found.log_loss == pytest.approx(oracle.log_loss(split.labels, probabilities), rel=1e-9)
    assert found.calibration_ratio == pytest.approx(probabilities.mean() / split.labels.mean())
    assert metrics_of(split.labels, predict_logits(model, split)) == found


def test_evaluation_stops_between_batches_and_restores_the_mode():
    model, asked = make_model("deepfm").train(), []
    with pytest.raises(JobCancelled):
        evaluate_model(model, MemoryDataset().split("valid"), 50, should_stop=lambda: bool(asked.append(1)) or len(asked) > 2)
    assert len(asked) == 3
    assert model.training


def test_a_split_of_one_class_is_measured_without_an_auc():
    split = MemoryDataset().split("valid")
    one_class = Split("valid", split.ids, split.values, np.ones(len(split), np.uint8))
    found = evaluate_model(make_model("deepfm"), one_class)
    assert math.isnan(found.auc) and found.log_loss > 0 and found.num_clicks == len(split)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_in_parallel_predict_what_one_call_of_the_model_does(threads):
    model, data = make_model("deepfm"), MemoryDataset()
    split, before = data.split("valid"), torch.get_num_threads()
    with torch.no_grad():
        expected = model(data.fields("valid")).numpy()
    torch.set_num_threads(threads)
    try:
        np.testing.assert_allclose(predict_logits(model, split, 7), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(predict_logits(model, split, 64, compute_dtype="bfloat16"), expected, rtol=0.05, atol=0.05)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    asked = iter([False, False, True])
    with pytest.raises(JobCancelled):
        predict_logits(model, split, 7, should_stop=lambda: next(asked))
