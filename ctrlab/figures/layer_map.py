"""The figure of all layers at once: one heat strip a layer, with the ranks that it needs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.figures.registry import FIGURES
from ctrlab.figures.text import plural
from ctrlab.figures.theme import AFM, INK, ORIGINAL, PAPER, THRESHOLD, axis, figure, light

#: Cells of a strip; a cell shows the direction at its left end.
COLUMNS = 100
#: Decibels below the strongest direction (0.1 % of it) where the shade ends.
_FLOOR = -60
_ROW_HEIGHT = 22
_NAME_LENGTH = 22
_TICK = {"symbol": "line-ns", "size": 15, "line": {"width": 2, "color": THRESHOLD.color}}
_DOT = {"symbol": "circle", "size": 9, "color": INK, "line": {"width": 1.5, "color": PAPER}}


def describe_layer_map(table: pd.DataFrame, spectra: Mapping[str, LayerSpectrum], *, selected: str | None = None) -> str:
    """Caption: directions for 95 % of the variance, in all layers shown and in the layer with the largest share."""
    if table.empty:
        return "No layer fits the filter."
    needed, width = int(table["k95"].sum()), int(table["width"].sum())
    most = table.loc[(table["k95"] / table["width"]).idxmax()]
    text = f"95 % of the variance of {plural(len(table), 'layer')} takes {needed:,} of {width:,} directions"
    return f"{text}; the largest share takes {most['layer']}, {most['k95']} of {most['width']}." if len(table) > 1 else f"{text}."


@FIGURES.register(title="All layers, direction by direction", describe=describe_layer_map)
def layer_map(table: pd.DataFrame, spectra: Mapping[str, LayerSpectrum], *, selected: str | None = None) -> go.Figure:
    """One strip a layer: how strong each direction is, from the strongest on the left; a click anywhere on a strip selects it.

    Args:
        table: columns layer, width, k90, k95, k99, break_even, in display order.
        spectra: by layer name, at least those of the table.
        selected: the outlined layer.
    """
    names = table["layer"].tolist()
    rows = list(range(len(names)))
    k90, k95, k99 = (100 * table[key] / table["width"] for key in ("k90", "k95", "k99"))
    break_even = (100 * table["break_even"] / table["width"]).where(table["break_even"] <= table["width"])
    lit = names.index(selected) if selected in names else None
    return figure(
        [
            _strips([spectra[name] for name in names]),
            _spans(k90, k99, rows),
            _marks("break-even", break_even, rows, _TICK),
            _marks("95 %", k95, rows, _DOT),
            _targets(table, rows),
        ],
        name="layer-map",
        height=96 + _ROW_HEIGHT * max(len(names), 1),
        x=axis("share of the layer's directions", range=[0, 101.5], ticksuffix=" %", showgrid=False),
        y={"tickmode": "array", "tickvals": rows, "ticktext": [_short(name) for name in names], "automargin": True,
           "range": [len(names) - 0.5, -0.5], "showgrid": False, "zeroline": False, "tickfont": {"size": 12}, "fixedrange": True},
        barmode="overlay",
        clickmode="event+select",
        shapes=[] if lit is None else [_outline(lit)],
    )  # fmt: skip


def strengths(layer: LayerSpectrum) -> NDArray[np.int8]:
    """(COLUMNS,) decibels of the singular value at each share of the width, relative to the largest, at least -60."""
    values = layer.singular_values[np.arange(COLUMNS) * layer.width // COLUMNS]
    if values[0] <= 0:
        return np.full(COLUMNS, _FLOOR, dtype=np.int8)
    with np.errstate(divide="ignore"):
        decibels: NDArray[np.int8] = np.maximum(np.round(20 * np.log10(values / values[0])), _FLOOR).astype(np.int8)
    return decibels


def _strips(layers: Sequence[LayerSpectrum]) -> dict[str, object]:
    return {
        "type": "heatmap", "z": np.array([strengths(layer) for layer in layers]).reshape(len(layers), COLUMNS),
        "x0": 0.5, "dx": 1, "y0": 0, "dy": 1, "ygap": 3, "zmin": _FLOOR, "zmax": 0, "hoverinfo": "skip",
        "colorscale": [[0, "rgba(128,133,136,0.10)"], [1, ORIGINAL.color]],
        "colorbar": {
            "title": {"text": "strength", "side": "top", "font": {"size": 12}}, "orientation": "h", "x": 1,
            "xanchor": "right", "y": 1, "yanchor": "bottom", "len": 0.36, "thickness": 8, "tickvals": [-60, -30, 0],
            "outlinewidth": 0, "ticktext": ["0.1 %", "3 %", "100 %"], "tickangle": 0, "ypad": 0, "xpad": 18,
        },
    }  # fmt: skip


def _spans(low: "pd.Series[float]", high: "pd.Series[float]", rows: Sequence[int]) -> dict[str, object]:
    """A line in each row from the rank for 90 to the rank for 99 % of the variance."""
    return {
        "type": "scatter", "mode": "lines", "name": "90 to 99 % of the variance", "hoverinfo": "skip",
        "x": [x for pair in zip(low, high, strict=True) for x in (*pair, None)],
        "y": [y for row in rows for y in (row, row, None)],
        "line": {"color": INK, "width": 2.2},
    }  # fmt: skip


def _marks(name: str, x: "pd.Series[float]", rows: Sequence[int], look: dict[str, object]) -> dict[str, object]:
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": light(x), "y": list(rows), "marker": look, "hoverinfo": "skip",
        "cliponaxis": False,
    }  # fmt: skip


def _targets(table: pd.DataFrame, rows: Sequence[int]) -> dict[str, object]:
    """An invisible bar over each strip, to point at and to click."""
    text = [
        f"{row.layer}<br>90 / 95 / 99 % in {row.k90} / {row.k95} / {row.k99} of {row.width} directions<br>"
        f"break-even at rank {row.break_even}"
        for row in table.itertuples()
    ]
    return {
        "type": "bar", "orientation": "h", "x": [100] * len(rows), "y": list(rows), "width": 1, "showlegend": False,
        "marker": {"color": "rgba(0,0,0,0)"}, "customdata": table["layer"].tolist(), "hovertext": text,
        "hovertemplate": "%{hovertext}<extra></extra>",
    }  # fmt: skip


def _short(name: str) -> str:
    """A name that fits beside the strips; the whole of it is in the hover text."""
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"


def _outline(row: int) -> dict[str, object]:
    return {
        "type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": row - 0.5, "y1": row + 0.5,
        "line": {"width": 2.5, "color": AFM.color},
    }  # fmt: skip
