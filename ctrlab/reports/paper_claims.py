"""The claims of the paper beside the results of a comparison.

The claims are the ranges in the abstract of arXiv 2405.18146, over seven architectures (DeepFM, DCN, AutoInt, FiBiNET, NFM, AFN,
GDCN); the paper's results of single architectures are not included.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ctrlab.reports.comparison import SPEED_BATCH, SPEED_RATIO

PAPER = "arXiv 2405.18146"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The paper's range, low to high, of a measure: "fewer" (times), "auc" (difference) or "faster" (share of the throughput)."""

    title: str
    measure: Literal["fewer", "auc", "faster"]
    low: float
    high: float


CLAIMS = (
    Claim(title="Parameters", measure="fewer", low=3.0, high=5.0),
    Claim(title="AUC", measure="auc", low=0.003, high=0.010),
    Claim(title="Throughput", measure="faster", low=0.35, high=1.70),
)


#: Digits after the point that each measure is shown with.
_DIGITS = {"fewer": 1, "auc": 4, "faster": 2}
_COLUMNS = (
    "name", "claim", "measure", "paper_low", "paper_high", "measured", "measured_low", "measured_high", "control", "controls",
    "tuned", "verdict",
)  # fmt: skip


def claims_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row a compressed model and claim; empty without an original.

    Args:
        table: `comparison_table` with the column tuning.

    Returns:
        Columns name, claim, measure, paper_low, paper_high, measured, measured_low and measured_high (95 % interval, of AUC
        and throughput), control (mean over the originals with the same fine-tuning and no compression), controls (their
        number), tuned (whether the model was fine-tuned), verdict ("as claimed", "more than claimed", "less than claimed",
        "not measured"; by the estimate, whatever the control gave). Unknown numbers are NaN.
    """
    originals = table[table["kind"] == "original"]
    compressed = table[table["kind"] == "compressed"] if len(originals) else table.iloc[:0]
    rows = [_row(model, originals.iloc[0], table, claim) for _, model in compressed.iterrows() for claim in CLAIMS]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _row(model: "pd.Series[float]", original: "pd.Series[float]", table: pd.DataFrame, claim: Claim) -> dict[str, object]:
    value, tuned = _measured(model, original, claim), bool(model["finetune"])
    same = table[(table["kind"] == "control") & (table["finetune"] == model["finetune"]) & tuned]
    controls = pd.Series([_measured(row, original, claim) for _, row in same.iterrows()], dtype=float).dropna()
    low, high = _interval(model, claim, value)
    return {
        "name": model["name"], "claim": claim.title, "measure": claim.measure, "paper_low": claim.low, "paper_high": claim.high,
        "measured": value, "measured_low": low, "measured_high": high, "control": controls.mean() if len(controls) else np.nan,
        "controls": len(controls), "tuned": tuned, "verdict": _verdict(value, claim),
    }  # fmt: skip


def _measured(model: "pd.Series[float]", original: "pd.Series[float]", claim: Claim) -> float:
    if claim.measure == "auc":
        return float(model["auc_change"])
    if claim.measure == "fewer":
        return float(original["parameters"] / max(model["parameters"], 1))
    return float(model[f"{SPEED_RATIO}_{SPEED_BATCH}"] - 1) if not model[f"{SPEED_RATIO}_reason_{SPEED_BATCH}"] else np.nan


def _interval(model: "pd.Series[float]", claim: Claim, value: float) -> tuple[float, float]:
    if claim.measure == "auc":
        return model["auc_change_low"], model["auc_change_high"]
    if claim.measure == "fewer" or value != value:
        return np.nan, np.nan
    low, high = (float(model[f"{SPEED_RATIO}_{end}_{SPEED_BATCH}"]) - 1 for end in ("low", "high"))
    return low, high


def _verdict(value: float, claim: Claim) -> str:
    if value != value:
        return "not measured"
    value = round(value, _DIGITS[claim.measure])  # as it is shown: 5.04 times is the "5.0x" of the claim
    return "less than claimed" if value < claim.low else "more than claimed" if value > claim.high else "as claimed"
