"""A figure of where a model loses against another: the change of log loss within segments."""

import pandas as pd
import plotly.graph_objects as go

from ctrlab.figures.registry import FIGURES
from ctrlab.figures.text import MINUS, plural
from ctrlab.figures.theme import AFM, axis, figure, light, marker, vertical

#: Segments that are drawn, and characters of their names.
_DRAWN, _NAME_LENGTH = 12, 34


def describe_segment_changes(table: pd.DataFrame) -> str:
    """Caption: in how many segments the loss is certain, and the first of them."""
    worse = table[table["log_loss_change_low"] > 0]
    if table.empty:
        return "No segment has enough clicks and non-clicks."
    if worse.empty:
        return f"In none of {plural(len(table), 'segment')} is a loss certain; the intervals hold for all of them together."
    first = worse.iloc[0]
    share = "" if first["share"] != first["share"] or first["share"] is None else f", {first['share']:.0%} of the whole rise"
    return (
        f"Log loss rises with certainty in {len(worse)} of {plural(len(table), 'segment')}, first where {first['segment']} "
        f"({_signed(first['log_loss_change'])}{share.replace('%', ' %')}); the intervals hold for all of them together."
    )


@FIGURES.register(title="Change of log loss by segment", describe=describe_segment_changes)
def segment_changes(table: pd.DataFrame) -> go.Figure:
    """A point and an interval a segment, the largest certain loss on top; right of the rule at 0 the model is worse.

    Args:
        table: of `services.segments.segments_table`.
    """
    shown = table.head(_DRAWN)
    estimate = shown["log_loss_change"].to_numpy(float)
    low, high = (shown[f"log_loss_change_{end}"].to_numpy(float) for end in ("low", "high"))
    rule, _ = vertical(0.0, "")
    trace = {
        "type": "scatter", "mode": "markers", "x": light(estimate), "y": list(range(len(shown))), "marker": marker(AFM, 9),
        "error_x": {"type": "data", "symmetric": False, "array": light(high - estimate), "arrayminus": light(estimate - low),
                    "color": AFM.color, "thickness": 1.6, "width": 4},
        "text": [f"{row['segment']}: AUC {row['auc_reference']:.4f} to {row['auc']:.4f}" for _, row in shown.iterrows()],
        "hovertemplate": "%{text}<br>log loss %{x:+.4f}<extra></extra>", "showlegend": False,
    }  # fmt: skip
    names = [name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…" for name in shown["segment"]]
    return figure(
        [trace], name="segments", height=90 + 26 * max(1, len(shown)),
        x=axis("change of log loss", tickformat="+.4~f"),
        y=axis("", tickvals=list(range(len(shown))), ticktext=names, autorange="reversed"),
        shapes=[rule],
    )  # fmt: skip


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else MINUS}{abs(value):.4f}"
