"""Rows of comparison tables for tests."""

from collections.abc import Mapping

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


def compared(number: int, *, unmeasured: int = 0, names: Mapping[int, str] | None = None) -> pd.DataFrame:
    """A table of `services.compared`: an original and models derived from it, the last `unmeasured` of them without numbers."""
    random = np.random.default_rng(0)
    size = np.concatenate([[1.9e6], np.round(random.uniform(1e5, 1.5e6, number - 1))])
    auc = np.concatenate([[0.76], random.uniform(0.74, 0.762, number - 1)])
    change = auc - auc[0]
    table = pd.DataFrame({
        "id": [f"model-{i}" for i in range(number)],
        "name": [(names or {}).get(i, f"DeepFM, AFM, run {i}") for i in range(number)],
        "kind": ["original", *(["compressed"] * (number - 1))], "architecture": "DeepFM",
        "method": ["", *(["AFM"] * (number - 1))], "ranks": ["", *(f"mlp.0 {i}" for i in range(1, number))],
        "rank_share": np.linspace(1, 0.1, number), "bits": [[32, 8, 4][i % 3] for i in range(number)],
        "split": "test", "measured_rows": 10_000.0, "measured_clicks": 2500.0, "auc": auc, "auc_low": auc - 0.01,
        "auc_high": auc + 0.01, "log_loss": 1.2 - auc, "calibration_ratio": 1.0, "calibration_error": 0.01,
        "auc_change": change, "auc_change_low": change - 0.002, "auc_change_high": change + 0.002,
        "parameters_tables": size / 8, "parameters_dense": size / 8, "parameters": size / 4, "bytes_tables": size / 2,
        "bytes_dense": size / 2, "bytes": size, "macs": size / 5, "smaller": size[0] / size,
        "finetune": "", "run_group": [str(i) for i in range(number)], "doubts": "", "note": "", "tags": "", "star": False,
    })  # fmt: skip
    table.loc[0, ["auc_change", "auc_change_low", "auc_change_high"]] = np.nan
    for runtime in ("torch", "onnx"):
        for batch in (1, 256, 4096):
            p50 = size / 1e6 * batch**0.5
            table[f"{runtime}_p50_ms_{batch}"], table[f"{runtime}_p99_ms_{batch}"] = p50, 1.5 * p50
            table[f"{runtime}_rows_per_second_{batch}"] = 1000 * batch / p50
            ratio = size[0] / size
            ends = {"": ratio, "_low": 0.98 * ratio, "_high": 1.02 * ratio}
            table = table.assign(**{f"{runtime}_speedup{end}_{batch}": value for end, value in ends.items()})
            table[f"{runtime}_speedup_reason_{batch}"] = ""
    measured = [name for name in table.columns if name.startswith(("auc", "log_loss", "calib", "measured", "torch", "onnx"))]
    table.loc[number - unmeasured :, [name for name in measured if "_reason_" not in name]] = np.nan
    return table
