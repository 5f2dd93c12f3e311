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
            "torch_rows_per_second_4096": 100.0,
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
