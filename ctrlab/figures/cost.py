"""The figure of a model's parameters before and after compression."""

import plotly.graph_objects as go

from ctrlab.figures.registry import FIGURES
from ctrlab.figures.text import count, percent, times
from ctrlab.figures.theme import AFM, ORIGINAL, axis, figure
from ctrlab.models.profile import Cost


def describe_cost_bars(before: Cost, after: Cost, *, names: tuple[str, str] = ("original", "compressed")) -> str:
    """Caption: parameters before and after, the factor between them, and the share of tables in the compressed model."""
    factor = before.parameters / max(after.parameters, 1)
    change = "no smaller" if times(factor) == times(1.0) or factor < 1 else f"{times(factor)} smaller"
    share = percent(after.parameters_tables / max(after.parameters, 1), 0)
    return f"{count(before.parameters)} parameters become {count(after.parameters)}, {change}; {share} of those are in tables."


@FIGURES.register(title="Parameters before and after", describe=describe_cost_bars)
def cost_bars(before: Cost, after: Cost, *, names: tuple[str, str] = ("original", "compressed")) -> go.Figure:
    """Two stacked bars, original above compressed: tables (plain) and dense part (hatched)."""
    hatch = {"fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.3)", "size": 7, "solidity": 0.3}
    traces = [
        {
            "type": "bar", "orientation": "h", "name": part, "y": list(names),
            "x": [getattr(cost, field) for cost in (before, after)],
            "marker": {"color": [ORIGINAL.color, AFM.color], "pattern": {"shape": shape, **hatch}},
            "text": [f"{part} {count(getattr(cost, field))}" for cost in (before, after)],
            "textposition": "inside", "insidetextanchor": "middle", "constraintext": "inside", "textangle": 0,
            "hovertemplate": "%{y}: %{text}<extra></extra>",
        }
        for part, field, shape in (("tables", "parameters_tables", ""), ("dense", "parameters_dense", "/"))
    ]  # fmt: skip
    return figure(
        traces,
        name="cost-bars",
        height=150,
        x=axis("parameters (dense part hatched)", tickformat="~s", rangemode="tozero"),
        y={"autorange": "reversed", "automargin": True},
        barmode="stack",
        bargap=0.3,
        showlegend=False,
        uniformtext={"minsize": 10, "mode": "hide"},
    )
