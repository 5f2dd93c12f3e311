"""Theme of all figures: one colour per meaning, and the common layout.

Colours are from Okabe and Ito's palette ("Color Universal Design", 2008), which is safe for the common kinds of colour
blindness; each has a contrast of 3:1 or more on the light and on the dark page. Dash and marker encode the same meaning.
Paper and plot are transparent and the page sets the text colour, so one figure serves both themes; `on_dark` brightens it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

#: Rules, ticks and everything that is neither a model nor a method; legible on light and dark.
GREY = "#808588"
#: Text and page of the light theme, for marks on a coloured ground and for the line around them.
INK, PAPER = "#0e1618", "#fcfcfb"
#: Grid lines on light and dark.
FAINT = "rgba(128,133,136,0.22)"
#: Largest number of points of a curve; more are not visible at the width of a page.
MAX_POINTS = 256


@dataclass(frozen=True)
class Role:
    """The meaning of a mark with its colour, dash and symbol."""

    name: str
    color: str
    dash: str
    symbol: str


ORIGINAL = Role("original", "#0072b2", "solid", "circle")
AFM = Role("AFM", "#d55e00", "solid", "diamond")
CONTROL = Role("control", "#009e73", "dash", "square")
FROM_SCRATCH = Role("from_scratch", "#b66a94", "dashdot", "triangle-up")
THRESHOLD = Role("threshold", GREY, "dot", "line-ns-open")

#: The colours on a dark page: as light as its text is, each role in its own hue.
DARK = {
    ORIGINAL.color: "#56b4e9", AFM.color: "#f0894a", CONTROL.color: "#3cc79a", FROM_SCRATCH.color: "#c79bd6", GREY: "#a9b5b5",
    INK: "#e4e9e8", PAPER: "#14191b",
}  # fmt: skip

ROLES = {role.name: role for role in (ORIGINAL, AFM, CONTROL, FROM_SCRATCH, THRESHOLD)}


def line(role: Role, width: float = 2.0) -> dict[str, Any]:
    """A plotly line in the colour and dash of `role`."""
    return {"color": role.color, "dash": role.dash, "width": width}


def marker(role: Role, size: float = 9.0) -> dict[str, Any]:
    """A plotly marker in the colour and shape of `role`."""
    return {"color": role.color, "symbol": role.symbol, "size": size}


def axis(title: str, *, standoff: int = 8, **settings: Any) -> dict[str, Any]:
    """A plotly axis with `title`, `standoff` pixels from its ticks, and the common grid."""
    return {
        "title": {"text": title, "standoff": standoff}, "gridcolor": FAINT, "linecolor": GREY, "zeroline": False,
        "automargin": True, **settings,
    }  # fmt: skip


def figure(
    traces: Sequence[dict[str, Any]], *, name: str, height: int, x: dict[str, Any], y: dict[str, Any], **layout: Any
) -> go.Figure:
    """A figure in the common layout. `name` keeps zoom and hidden traces across redraws (plotly's `uirevision`).

    Traces are plain dicts: building graph objects one by one takes three times as long.
    """
    common = {
        "height": height,
        "margin": {"t": 30, "r": 10, "b": 10, "l": 10},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "uirevision": name,
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom", "title": {"text": ""}},
        "xaxis": x,
        "yaxis": y,
    }
    return go.Figure(data=list(traces), layout=common | layout)


def on_dark(value: Any) -> Any:
    """A figure's JSON object, or any part of it, with the colours of a dark page."""
    if isinstance(value, dict):
        return {key: on_dark(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [on_dark(part) for part in value]
    return DARK.get(value, value) if isinstance(value, str) else value


def thin(length: int, keep: Sequence[int] = ()) -> NDArray[np.intp]:
    """At most 256 indices into `length` points: the first 96, then even steps, always with `keep` and the last."""
    if length <= MAX_POINTS:
        return np.arange(length)
    kept = np.unique([*[index for index in keep if 0 <= index < length], length - 1])[:64]
    head = np.arange(96)
    rest = np.linspace(96, length - 1, MAX_POINTS - len(head) - len(kept)).astype(np.intp)
    return np.unique(np.concatenate([head, rest, kept]))


def light(values: ArrayLike) -> NDArray[np.float32]:
    """`values` as float32, which halves what is sent to the browser."""
    return np.asarray(values, dtype=np.float32)


def vertical(
    x: float, text: str, *, level: int = 0, role: Role = THRESHOLD, y_top: float = 1.0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(shape, annotation) of a vertical rule at `x` with a label at its top; `level` moves the label down by lines."""
    rule = {
        "type": "line", "x0": x, "x1": x, "y0": 0, "y1": y_top, "yref": "paper",
        "line": {"color": role.color, "dash": role.dash, "width": 1.4},
    }  # fmt: skip
    label = {
        "x": x, "y": y_top, "yref": "paper", "yanchor": "top", "xanchor": "left", "xshift": 3, "yshift": -14 * level,
        "text": text, "showarrow": False, "font": {"size": 11, "color": role.color},
    }  # fmt: skip
    return rule, label
