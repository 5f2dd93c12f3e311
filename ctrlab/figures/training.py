"""The figure of loss and AUC of a training run."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ctrlab.figures.registry import FIGURES
from ctrlab.figures.text import count
from ctrlab.figures.theme import CONTROL, ORIGINAL, THRESHOLD, axis, figure, light, line, marker, thin

_LOSSES = {"train_loss": ("training loss", ORIGINAL, "lines"), "valid_log_loss": ("validation loss", CONTROL, "lines+markers")}
_AUC = "valid_auc"


def _series(table: pd.DataFrame, name: str) -> pd.DataFrame:
    rows = table[(table["name"] == name) & table["value"].notna()].sort_values("step")
    return rows.iloc[thin(len(rows))] if len(rows) else rows


def describe_training_curves(table: pd.DataFrame) -> str:
    """Caption: the last training loss and the best validation AUC."""
    loss, auc = _series(table, "train_loss"), _series(table, _AUC)
    parts = []
    if len(loss):
        parts.append(f"training loss {loss['value'].iloc[-1]:.4f} at step {count(loss['step'].iloc[-1])}")
    if len(auc):
        best = auc.loc[auc["value"].idxmax()]
        parts.append(f"best validation AUC {best['value']:.4f} at step {count(best['step'])}")
    text = "; ".join(parts) or "no step has been reported yet"
    return f"{text[0].upper()}{text[1:]}."


@FIGURES.register(title="Training curves", describe=describe_training_curves)
def training_curves(table: pd.DataFrame) -> go.Figure:
    """Loss on the left, validation AUC on the right, over steps; the best AUC is ringed.

    Args:
        table: long form, columns step, name ("train_loss" | "valid_log_loss" | "valid_auc"; others are ignored), value.
    """
    traces: list[dict[str, object]] = []
    for name, (label, role, mode) in _LOSSES.items():
        rows = _series(table, name)
        traces.append(_trace(rows, label, mode, line(role), marker(role, 6), "x", "y"))
    auc = _series(table, _AUC)
    traces.append(_trace(auc, "validation AUC", "lines+markers", line(CONTROL), marker(CONTROL, 7), "x2", "y2"))
    if len(auc):
        traces.append(_trace(auc.loc[[auc["value"].idxmax()]], "best", "markers", {}, _ring(), "x2", "y2"))
    steps = table["step"].max() if len(table) else 1
    span = [-0.02 * steps, 1.02 * max(steps, 1)]
    return figure(
        traces,
        name="training-curves",
        height=290,
        x=axis("step", domain=[0, 0.46], range=span, tickformat="~s"),
        y=axis("log loss"),
        xaxis2=axis("step", domain=[0.56, 1], range=span, anchor="y2", tickformat="~s"),
        yaxis2=axis("AUC", anchor="x2", tickformat=".3f"),
    )


def _trace(
    rows: pd.DataFrame, name: str, mode: str, style: dict[str, object], mark: dict[str, object], x: str, y: str
) -> dict[str, object]:
    return {
        "type": "scatter", "mode": mode, "name": name, "x": rows["step"].to_numpy(np.int32), "y": light(rows["value"]),
        "line": style, "marker": mark, "xaxis": x, "yaxis": y,
        "hovertemplate": f"{name} %{{y:.4f}} at step %{{x}}<extra></extra>",
    }  # fmt: skip


def _ring() -> dict[str, object]:
    return {"symbol": "circle-open", "size": 14, "color": THRESHOLD.color, "line": {"width": 2}}
