"""Verdicts in words."""

import numpy as np
import pytest

from ctrlab.reports.verdict import verdict
from tests.support.comparisons import row, speed


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            {"bytes": 1360, "auc": 0.7632, **speed(1.4), "finetune": "{}"},
            "2.9x smaller, 1.4x faster at batch 4096 (95 % 1.4x to 1.4x); AUC +0.0003 on 5.00 k test rows with 1.25 k clicks. "
            "Without a control (the original with the same fine-tuning) this gain may come from fine-tuning. One seed.",
        ),
        (
            {"bytes": 4000, "auc": 0.7629, **speed(0.5)},
            "no smaller, 2.0x slower at batch 4096 (95 % 2.0x to 2.0x); AUC ±0.0000 on 5.00 k test rows with 1.25 k clicks. One seed.",
        ),
        (
            {"bytes": 2000, **speed(1.01), "auc": 0.7627, "auc_change_low": -0.0005, "auc_change_high": 0.0001},
            "2.0x smaller, as fast at batch 4096 (95 % 0.99x to 1.03x); AUC \N{MINUS SIGN}0.0002 (95 % \N{MINUS SIGN}0.0005 to +0.0001), "
            "no measurable loss, on 5.00 k test rows with 1.25 k clicks. One seed.",
        ),
        (
            {
                "bytes": 2000,
                **speed(3.0, 0.5, "they varied too much"),
                "auc": 0.7632,
                "auc_change_low": -0.0001,
                "auc_change_high": 0.0007,
                "finetune": "{}",
            },
            "2.0x smaller, no verdict on speed: they varied too much; time again; AUC +0.0003 (95 % \N{MINUS SIGN}0.0001 to +0.0007), "
            "no measurable gain, on 5.00 k test rows with 1.25 k clicks. One seed.",
        ),
        (
            {"bytes": 2000, "auc": 0.7609, "auc_change_low": -0.0025, "auc_change_high": -0.0015},
            "2.0x smaller; AUC \N{MINUS SIGN}0.0020 (95 % \N{MINUS SIGN}0.0025 to \N{MINUS SIGN}0.0015), "
            "a measurable loss, on 5.00 k test rows with 1.25 k clicks. One seed.",
        ),
        (
            {"bytes": 2000, "auc": np.nan},
            "2.0x smaller; its AUC has not been measured.",
        ),
    ],
)
def test_the_verdict_says_size_speed_auc_and_what_is_measurable(other, sentence):
    compressed = row(**{"kind": "compressed"} | other)
    assert verdict(row(), compressed, [row(), compressed]) == sentence


def test_the_verdict_names_what_fine_tuning_alone_gave_and_the_spread_over_seeds():
    tuned = {"kind": "compressed", "finetune": "{}", "run_group": "afm", "bytes": 1000}
    changes = (0.0010, 0.0020, 0.0030)
    compressed = [row(**tuned, auc=0.7629 + change, auc_change=change, auc_change_low=change - 0.0005) for change in changes]
    control = {"kind": "control", "finetune": "{}", "run_group": "control"}
    controls = [row(**control, auc=0.7633 + step, auc_change=0.0004 + step, auc_change_low=0.0001) for step in (0.0, 0.0002)]
    table = [row(), *compressed, *controls]
    sentence = verdict(row(), compressed[0], table)
    assert sentence.endswith("clicks; fine-tuning alone gave +0.0005. Over 3 seeds +0.0020, standard deviation 0.0010.")
    assert "may come from fine-tuning" not in sentence
    assert verdict(row(), controls[0], table).endswith("clicks. Over 2 seeds +0.0005, standard deviation 0.0001.")


FEW = {"kind": "compressed", "bytes": 2000, "auc": 0.7729, "auc_change": 0.01, "auc_change_low": 0.004, "auc_change_high": 0.016}


@pytest.mark.parametrize("clicks", [4, 29, 4971])
def test_below_the_stated_number_of_clicks_or_non_clicks_there_is_no_verdict_of_gain_or_loss(clicks):
    compressed = row(**FEW, measured_clicks=clicks, finetune="{}")
    sentence = verdict(row(), compressed, [row(), compressed])
    assert "AUC +0.0100 (95 % +0.0040 to +0.0160), no verdict below 30 clicks and 30 non-clicks, on 5.00 k test rows" in sentence
    assert "measurable" not in sentence and "gain" not in sentence


def test_with_as_many_clicks_as_stated_there_is_a_verdict():
    compressed = row(**FEW, measured_clicks=30)
    assert "a measurable gain, on 5.00 k test rows with 30 clicks" in verdict(row(), compressed, [row(), compressed])


def test_rows_of_one_class_have_no_auc_and_the_verdict_says_so():
    compressed = row(kind="compressed", bytes=2000, auc=np.nan, measured_clicks=0)
    assert verdict(row(), compressed, [row(), compressed]) == (
        "2.0x smaller; an AUC is not defined on 5.00 k test rows with 0 clicks."
    )


def test_what_speaks_against_either_model_stands_in_the_verdict():
    untrained = "it is hardly trained: 7 steps"
    compressed = row(kind="compressed", bytes=2000, doubts="it predicts 12.00 times as many clicks as there are")
    sentence = verdict(row(doubts=untrained), compressed, [row(), compressed])
    assert "In doubt: it predicts 12.00 times as many clicks as there are." in sentence
    assert sentence.endswith(f"The original is in doubt, so a comparison with it says little: {untrained}.")
