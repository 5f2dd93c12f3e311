"""The figure of the ranks that every layer needs for 90 and 99 % of its variance."""

import pandas as pd
import plotly.graph_objects as go

from ctrlab.figures.registry import FIGURES
from ctrlab.figures.text import percent, plural
from ctrlab.figures.theme import AFM, FAINT, ORIGINAL, THRESHOLD, axis, figure, light, marker

_ROW_HEIGHT = 19
_NAME_LENGTH = 22


def describe_rank_overview(table: pd.DataFrame, *, selected: str | None = None) -> str:
    """Caption: the median share of the width that 99 % of the variance needs, for linear layers and for tables."""
    parts = []
    for kind, owner, noun in (("linear", "a linear layer's", "layer"), ("embedding", "a table's", "table")):
        shares = (table["k99"] / table["width"])[table["kind"] == kind]
        if len(shares):
            parts.append(f"{percent(float(shares.median()), 0)} of {owner} width ({plural(len(shares), noun)})")
    return f"In the median, 99 % of the variance needs {' and '.join(parts)}." if parts else "No layer has a spectrum."


@FIGURES.register(title="Rank needed per layer", describe=describe_rank_overview)
def rank_overview(table: pd.DataFrame, *, selected: str | None = None) -> go.Figure:
    """One row a layer: ranks that keep 90 and 99 % of the variance as shares of the width, break-even as a tick.

    Args:
        table: columns layer, kind ("linear" | "embedding"), width, k90, k99, break_even, in display order.
        selected: the highlighted layer.
    """
    names = table["layer"].tolist()
    k90, k99 = (100 * table[key] / table["width"] for key in ("k90", "k99"))
    break_even = (100 * table["break_even"] / table["width"]).clip(upper=100)
    spans_x = [x for low, high in zip(k90, k99, strict=True) for x in (low, high, None)]
    spans_y = [y for name in names for y in (name, name, None)]
    hover = [
        f"{row.layer}<br>90 % in {row.k90}, 99 % in {row.k99} of {row.width} directions" for row in table.itertuples()
    ]  # fmt: skip
    common = {"type": "scatter", "mode": "markers", "y": names, "customdata": names, "cliponaxis": False}
    traces = [
        {"type": "scatter", "mode": "lines", "x": spans_x, "y": spans_y, "showlegend": False, "hoverinfo": "skip",
         "line": {"color": ORIGINAL.color, "width": 2}, "opacity": 0.45},
        {**common, "x": light(break_even), "name": "break-even", "hoverinfo": "skip",
         "marker": {"color": THRESHOLD.color, "symbol": "line-ns", "size": 11, "line": {"width": 1.6, "color": THRESHOLD.color}}},
        {**common, "x": light(k90), "name": "90 % of variance", "text": hover, "hovertemplate": "%{text}<extra></extra>",
         "marker": {**marker(ORIGINAL, 8), "symbol": "circle-open", "line": {"width": 1.8}}},
        {**common, "x": light(k99), "name": "99 % of variance", "text": hover, "hovertemplate": "%{text}<extra></extra>",
         "marker": marker(ORIGINAL, 9)},
    ]  # fmt: skip
    lit = names.index(selected) if selected in names else None
    return figure(
        traces,
        name="rank-overview",
        height=86 + _ROW_HEIGHT * len(names),
        x=axis("rank / width", range=[-2, 102], ticksuffix=" %"),
        y={"type": "category", "categoryorder": "array", "categoryarray": names[::-1], "automargin": True, "gridcolor": FAINT,
           "tickfont": {"size": 11}, "tickmode": "array", "tickvals": names, "ticktext": [_short(name) for name in names],
           "range": [-0.7, len(names) - 0.3], "dtick": 1},
        clickmode="event+select",
        shapes=[] if lit is None else [_highlight(len(names) - 1 - lit)],
    )  # fmt: skip


def _short(name: str) -> str:
    """A name that fits beside the rows; the whole of it is in the hover text."""
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"


def _highlight(position: int) -> dict[str, object]:
    return {
        "type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": position - 0.5, "y1": position + 0.5, "layer": "below",
        "fillcolor": AFM.color, "opacity": 0.16, "line": {"width": 0},
    }  # fmt: skip
