"""Verdicts in words."""

import numpy as np
import pandas as pd
import pytest

from ctrlab.reports.verdict import verdict
from tests.support.comparisons import row


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            {"bytes": 1360, "auc": 0.7632, "torch_rows_per_second_4096": 140.0, "finetune": "{}"},
            "2.9x smaller, 1.4x faster at batch 4096; AUC +0.0003 on 5.00 k test rows. "
            "Without a control (the original with the same fine-tuning) this gain may come from fine-tuning. One seed.",
        ),
        (
            {"bytes": 4000, "auc": 0.7629, "torch_rows_per_second_4096": 50.0},
            "no smaller, 2.0x slower at batch 4096; AUC ±0.0000 on 5.00 k test rows. One seed.",
        ),
        (
            {"bytes": 2000, "auc": 0.7627, "auc_change_low": -0.0005, "auc_change_high": 0.0001},
            "2.0x smaller, as fast at batch 4096; AUC \N{MINUS SIGN}0.0002 (95 % \N{MINUS SIGN}0.0005 to +0.0001), "
            "no measurable loss, on 5.00 k test rows. One seed.",
        ),
        (
            {"bytes": 2000, "auc": 0.7632, "auc_change_low": -0.0001, "auc_change_high": 0.0007, "finetune": "{}"},
            "2.0x smaller, as fast at batch 4096; AUC +0.0003 (95 % \N{MINUS SIGN}0.0001 to +0.0007), "
            "no measurable gain, on 5.00 k test rows. One seed.",
        ),
        (
            {"bytes": 2000, "auc": 0.7609, "auc_change_low": -0.0025, "auc_change_high": -0.0015},
            "2.0x smaller, as fast at batch 4096; AUC \N{MINUS SIGN}0.0020 (95 % \N{MINUS SIGN}0.0025 to \N{MINUS SIGN}0.0015), "
            "a measurable loss, on 5.00 k test rows. One seed.",
        ),
        (
            {"bytes": 2000, "auc": np.nan, "torch_rows_per_second_4096": np.nan},
            "2.0x smaller; its AUC has not been measured.",
        ),
    ],
)
def test_the_verdict_says_size_speed_auc_and_what_is_measurable(other, sentence):
    compressed = row(**{"kind": "compressed"} | other)
    assert verdict(row(), compressed, pd.DataFrame([row(), compressed])) == sentence


def test_the_verdict_names_what_fine_tuning_alone_gave_and_the_spread_over_seeds():
    tuned = {"kind": "compressed", "finetune": "{}", "run_group": "afm", "bytes": 1000}
    changes = (0.0010, 0.0020, 0.0030)
    compressed = [row(**tuned, auc=0.7629 + change, auc_change=change, auc_change_low=change - 0.0005) for change in changes]
    control = {"kind": "control", "finetune": "{}", "run_group": "control"}
    controls = [row(**control, auc=0.7633 + step, auc_change=0.0004 + step, auc_change_low=0.0001) for step in (0.0, 0.0002)]
    table = pd.DataFrame([row(), *compressed, *controls])
    sentence = verdict(row(), compressed[0], table)
    assert sentence.endswith("test rows; fine-tuning alone gave +0.0005. Over 3 seeds +0.0020, standard deviation 0.0010.")
    assert "may come from fine-tuning" not in sentence
    assert verdict(row(), controls[0], table).endswith("rows. Over 2 seeds +0.0005, standard deviation 0.0001.")
