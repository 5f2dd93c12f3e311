"""Rows of comparison tables for tests."""

import numpy as np
import pandas as pd


def row(**values: object) -> pd.Series:
    """A row of a comparison table, with the columns of a report; the original's unless `values` say otherwise."""
    return pd.Series(
        {
            "id": "model-1",
            "kind": "original",
            "bytes": 4000,
            "auc": 0.7629,
            **{f"torch_speedup{end}_4096": np.nan for end in ("", "_low", "_high")},
            "torch_speedup_reason_4096": "",
            "measured_rows": 5000,
            "measured_clicks": 1250,
            "split": "test",
            "finetune": "",
            "run_group": "one",
            "doubts": "",
            "auc_change": np.nan,
            "auc_change_low": np.nan,
            "auc_change_high": np.nan,
        }
        | values
    )


def speed(ratio: float, spread: float = 0.02, reason: str = "") -> dict[str, object]:
    """The columns of a row that was timed with the original."""
    ends = {"": ratio, "_low": ratio * (1 - spread), "_high": ratio * (1 + spread), "_reason": reason}
    return {f"torch_speedup{end}_4096": value for end, value in ends.items()}
