"""Trainings in words, and what speaks against a trained model."""

import pytest

from ctrlab.reports.training import measurement_doubts, spectra_doubts, training_doubts


def training(losses, steps=400, stopped_early=False):
    history = [{"step": number, "epoch": 0, "valid_log_loss": loss} for number, loss in enumerate(losses, 1)]
    return {"steps": steps, "best_step": 1, "stopped_early": stopped_early, "history": history}


def evaluation(auc=0.75, rows=5000, clicks=1000, ratio=1.0, low=0.74, constant=False):
    metrics = {"auc": auc, "num_rows": rows, "num_clicks": clicks, "calibration_ratio": ratio}
    return {"split": "test", "metrics": metrics, "auc_interval": {"low": low}, "constant_prediction": constant}


def test_a_curve_that_has_settled_and_enough_steps_raise_no_doubt():
    assert training_doubts(training([0.5, 0.46, 0.4590])) == []
    assert training_doubts(training([0.5, 0.45, 0.47], stopped_early=True)) == []
    assert training_doubts(None) == []


def test_a_validation_loss_that_still_falls_at_the_end_is_named():
    (doubt,) = training_doubts(training([0.5, 0.48, 0.46]))
    assert "still falling" in doubt and "raise the epochs" in doubt


def test_too_few_steps_are_named_unless_early_stopping_found_them_enough():
    (doubt,) = training_doubts(training([0.5], steps=7))
    assert "hardly trained: 7 steps" in doubt
    assert training_doubts(training([0.5, 0.51], steps=44, stopped_early=True)) == []


def test_rows_without_validation_give_no_curve_to_doubt():
    assert training_doubts(training([None, None])) == []


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (evaluation(auc=0.44, low=0.42), "below 0.5"),
        (evaluation(auc=0.53, low=0.49), "not measurably above 0.5"),
        (evaluation(auc=0.5, low=0.5, constant=True), "the same for every row"),
        (evaluation(clicks=4), "hardly known: it was measured on 5.00 k test rows with 4 clicks"),
        (evaluation(clicks=4996), "hardly known"),
        (evaluation(auc=None, clicks=0, ratio=None, low=1.0), "not defined"),
        (evaluation(ratio=12.0), "12.00 times as many clicks"),
        (evaluation(ratio=0.014), "0.01 times as many clicks"),
    ],
)
def test_each_weakness_of_a_measurement_is_said(measured, words):
    (doubt,) = measurement_doubts(measured)
    assert words in doubt


def test_a_good_measurement_raises_no_doubt():
    assert measurement_doubts(evaluation()) == [] and measurement_doubts(None) == []
    assert measurement_doubts(evaluation(ratio=1.3, clicks=60)) == []  # within 3 standard errors of so few clicks


def test_spectra_of_fewer_rows_than_their_layers_need_are_named():
    assert spectra_doubts(4000, 400) == [] and spectra_doubts(None, 400) == []
    assert "a layer of 400 outputs needs 4,000" in spectra_doubts(3999, 400)[0]
