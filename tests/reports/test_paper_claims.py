"""The claims of the paper beside measurements."""

import numpy as np
import pandas as pd
import pytest

from ctrlab.reports.paper_claims import claims_table
from tests.support.comparisons import row, speed


def test_each_claim_has_the_measured_result_and_that_of_fine_tuning_alone():
    tuned = {"finetune": "{}", "parameters": 250}
    table = pd.DataFrame(
        [
            row(parameters=1000),
            row(**tuned, kind="compressed", name="afm", auc_change=0.004, auc_change_low=0.003, auc_change_high=0.005,
                **speed(2.2)),
            row(kind="compressed", name="truncated", parameters=100, **speed(9.0, reason="the timing varied too much")),
            row(kind="control", finetune="{}", parameters=1000, auc_change=0.003),
            row(kind="control", finetune="{}", parameters=1000, auc_change=0.005),
        ]
    )  # fmt: skip
    claims = claims_table(table)
    assert claims["name"].tolist() == ["afm"] * 3 + ["truncated"] * 3
    fewer, auc, faster = (claims.iloc[number] for number in range(3))
    assert fewer["measured"] == 4.0 and fewer["verdict"] == "as claimed" and fewer["control"] == 1.0 and fewer["controls"] == 2
    assert auc["measured"] == 0.004 and auc["control"] == pytest.approx(0.004) and auc["measured_low"] == 0.003
    assert faster["measured"] == pytest.approx(1.2) and faster["measured_low"] == pytest.approx(2.2 * 0.98 - 1)
    bare = claims[claims["name"] == "truncated"]
    assert bare["verdict"].tolist() == ["more than claimed", "not measured", "not measured"] and not bare["controls"].any()
    assert claims_table(table[table["kind"] != "original"]).empty


@pytest.mark.parametrize(
    ("value", "verdict"), [(5.04, "as claimed"), (5.06, "more than claimed"), (2.96, "as claimed"), (2.94, "less than claimed")]
)
def test_a_claim_is_judged_by_the_digits_that_are_shown(value, verdict):
    rows = [{"id": kind, "name": kind, "kind": kind, "finetune": "", "parameters": parameters, "auc_change": np.nan,
             "auc_change_low": np.nan, "auc_change_high": np.nan, **speed(np.nan)}
            for kind, parameters in (("original", 1e6 * value), ("compressed", 1e6))]  # fmt: skip
    assert claims_table(pd.DataFrame(rows))["verdict"].iloc[0] == verdict
