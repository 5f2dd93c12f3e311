"""What the paper says beside what a comparison measured, claim by claim.

The claims are those of the abstract of arXiv 2405.18146, over seven architectures (DeepFM, DCN, AutoInt, FiBiNET, NFM, AFN,
GDCN). What each architecture gave by itself is not among them: those tables were not at hand when this was written.
"""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from ctrlab.services.comparison import LATENCY_BATCH_SIZES

PAPER = "arXiv 2405.18146"
SPEED_BATCH = LATENCY_BATCH_SIZES[-1]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """low to high: the paper's range of `measure`: "fewer" (times), "auc" (difference) or "faster" (share of the throughput)."""

    title: str
    measure: Literal["fewer", "auc", "faster"]
    low: float
    high: float


CLAIMS = (
    Claim(title="Parameters", measure="fewer", low=3.0, high=5.0),
    Claim(title="AUC", measure="auc", low=0.003, high=0.010),
    Claim(title="Throughput", measure="faster", low=0.35, high=1.70),
)


def claims_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row a compressed model and claim, of a table as `comparison_table` gives it, with the column tuning beside.

    Columns: name, claim, measure, paper_low, paper_high, measured, measured_low and measured_high (95 % interval; of AUC alone),
    control (mean of what originals gave that were fine-tuned alike and not compressed), controls (how many), tuned (whether this
    model was fine-tuned), verdict ("as claimed", "more than claimed", "less than claimed", "not measured"; by the estimate,
    whatever the control). NaN where nothing is known. Empty without an original.
    """
    originals = table[table["kind"] == "original"]
    rows = []
    for _, model in table[table["kind"] == "compressed"].iterrows() if len(originals) else ():
        controls = table[(table["kind"] == "control") & (table["tuning"] == model["tuning"]) & bool(model["tuning"])]
        for claim in CLAIMS:
            value = _measured(model, originals.iloc[0], claim)
            others = pd.Series([_measured(row, originals.iloc[0], claim) for _, row in controls.iterrows()], dtype=float).dropna()
            interval = (model["auc_change_low"], model["auc_change_high"]) if claim.measure == "auc" else (float("nan"),) * 2
            rows.append(
                {"name": model["name"], "claim": claim.title, "measure": claim.measure, "paper_low": claim.low,
                 "paper_high": claim.high, "measured": value, "measured_low": interval[0], "measured_high": interval[1],
                 "control": others.mean() if len(others) else float("nan"), "controls": len(others),
                 "tuned": bool(model["tuning"]),
                 "verdict": _verdict(value, claim)}
            )  # fmt: skip
    columns = ["name", "claim", "measure", "paper_low", "paper_high", "measured", "measured_low", "measured_high", "control",
               "controls", "tuned", "verdict"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _measured(model: "pd.Series[float]", original: "pd.Series[float]", claim: Claim) -> float:
    if claim.measure == "auc":
        return float(model["auc_change"])
    if claim.measure == "fewer":
        return float(original["parameters"] / max(model["parameters"], 1))
    column = f"torch_rows_per_second_{SPEED_BATCH}"
    return float(model[column] / original[column] - 1)


def _verdict(value: float, claim: Claim) -> str:
    if value != value:
        return "not measured"
    return "less than claimed" if value < claim.low else "more than claimed" if value > claim.high else "as claimed"
