"""Figures of the fields of a dataset: number of ids, and share of rows held by the most frequent ids."""

import pandas as pd
import plotly.graph_objects as go

from ctrlab.figures.registry import FIGURES
from ctrlab.figures.text import count, percent, plural
from ctrlab.figures.theme import FAINT, ORIGINAL, axis, figure, light

_ROW_HEIGHT = 20


def _categorical(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["kind"] == "categorical"] if "kind" in table else table


def describe_cardinalities(table: pd.DataFrame) -> str:
    """Caption: the number of ids and the field with most of them."""
    rows = _categorical(table)
    if rows.empty:
        return "There is no categorical field."
    total, largest = int(rows["cardinality"].sum()), rows.loc[rows["cardinality"].idxmax()]
    share = percent(largest["cardinality"] / max(total, 1), 0)
    most = count(largest["cardinality"])
    return f"{count(total)} ids in {plural(len(rows), 'field')}; {largest['name']} has {most} of them ({share})."


@FIGURES.register(title="Ids per field", describe=describe_cardinalities)
def cardinalities(table: pd.DataFrame) -> go.Figure:
    """Number of ids of each categorical field on a log axis, in descending order.

    Args:
        table: columns name, cardinality (ids in use) and, if there are numeric fields to leave out, kind.
    """
    rows = _categorical(table).sort_values("cardinality", ascending=False)
    labels = [count(value) for value in rows["cardinality"]]
    x = axis("ids", type="log", tickformat="~s", dtick=1, range=[-0.1, _decades(rows["cardinality"])])
    return _bars(rows, "cardinality", labels, x, "cardinalities")


def _decades(values: pd.Series) -> float:
    """Upper end of the axis in decades, with room for the label beyond the longest bar."""
    highest = float(values.max()) if len(values) else 1.0
    return len(f"{max(highest, 1):.0f}") + 0.4


def describe_head_shares(table: pd.DataFrame) -> str:
    """Caption: the share of rows with one of the most frequent 1 % of ids, in the median field and in the largest."""
    rows = _categorical(table)
    if rows.empty:
        return "There is no categorical field."
    top = rows.loc[rows["head_share"].idxmax()]
    median = percent(float(rows["head_share"].median()), 0)
    return (
        f"The most frequent 1 % of ids appear in {median} of the rows in the median field, "
        f"in {percent(top['head_share'], 0)} in {top['name']}."
    )


@FIGURES.register(title="Share of the most frequent ids", describe=describe_head_shares)
def head_shares(table: pd.DataFrame) -> go.Figure:
    """Share of the training rows with one of the most frequent 1 % of ids, in the order of `cardinalities`.

    Args:
        table: columns name, cardinality, head_share (0..1) and optionally kind.
    """
    rows = _categorical(table).sort_values("cardinality", ascending=False)
    rows = rows.assign(percent=100 * rows["head_share"])
    labels = [percent(value, 0) for value in rows["head_share"]]
    return _bars(
        rows,
        "percent",
        labels,
        axis("rows with one of the most frequent 1 % of ids", range=[0, 112], ticksuffix=" %"),
        "head-shares",
    )


def _bars(rows: pd.DataFrame, column: str, labels: list[str], x: dict[str, object], name: str) -> go.Figure:
    bars = {
        "type": "bar", "orientation": "h", "y": rows["name"].tolist(), "x": light(rows[column]), "text": labels,
        "textposition": "outside", "cliponaxis": False, "marker": {"color": ORIGINAL.color, "opacity": 0.85},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }  # fmt: skip
    y = {
        "type": "category",
        "autorange": "reversed",
        "automargin": True,
        "tickfont": {"size": 11},
        "dtick": 1,
        "gridcolor": FAINT,
    }
    return figure([bars], name=name, height=70 + _ROW_HEIGHT * len(rows), x=x, y=y, bargap=0.35)
