"""The interactive demos of the Learn page, computed in numpy at every slider step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from ctrlab.figures.text import count, percent
from ctrlab.figures.theme import AFM, CONTROL, ORIGINAL, THRESHOLD, axis, figure, light, line, marker
from ctrlab.ui.components.charts import chart

_NUM_POINTS = 240
_ROWS, _COLUMNS, _PLANTED = 24, 36, 3


def cloud() -> None:
    """A two-dimensional cloud, its principal directions, and the variance lost when only the first is kept."""
    st.markdown("**Try it: a cloud in two dimensions**")
    left, right = st.columns(2)
    ratio = left.slider("Spread ratio", 0.0, 1.0, 0.3, 0.05, key="cloud-ratio")
    angle = right.slider("Direction (degrees)", 0, 175, 30, 5, key="cloud-angle")
    points = _cloud_points(ratio, angle)
    eigenvalues, eigenvectors = principal_directions(points)
    kept = points @ eigenvectors[:, :1] @ eigenvectors[:, :1].T
    reach = 2 * np.sqrt(eigenvalues)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "name": "outputs", "x": light(points[:, 0]), "y": light(points[:, 1]),
            "marker": {**marker(ORIGINAL, 5), "opacity": 0.6}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "markers", "name": "rank 1", "x": light(kept[:, 0]), "y": light(kept[:, 1]),
            "marker": marker(AFM, 4), "hoverinfo": "skip",
        },
    ]  # fmt: skip
    for number in range(2):
        end = eigenvectors[:, number] * reach[number]
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": f"direction {number + 1}",
                "x": [-end[0], end[0]], "y": [-end[1], end[1]],
                "line": line(THRESHOLD if number else CONTROL, 2.5), "hoverinfo": "skip",
            }
        )  # fmt: skip
    span = [-3.4, 3.4]
    drawing = figure(
        traces, name="cloud", height=380, x=axis("output 1", range=span), y=axis("output 2", range=span, scaleanchor="x")
    )
    share = eigenvalues[0] / max(eigenvalues.sum(), 1e-12)
    chart(
        drawing, "cloud",
        sentence=f"The first direction holds {percent(share)} of the variance; rank 1 loses the other {percent(1 - share)}, "
        "the mean squared distance between outputs and projections as a share.",
    )  # fmt: skip


def low_rank_matrix() -> None:
    """A matrix of three patterns and noise, and its approximation of a chosen rank."""
    st.markdown("**Try it: a matrix of three patterns and some noise**")
    left, right = st.columns(2)
    rank = left.slider("Rank", 1, 12, 2, key="matrix-rank")
    noise = right.slider("Noise", 0.0, 1.0, 0.2, 0.05, key="matrix-noise")
    matrix = _patterns(noise)
    rebuilt, lost = truncate(matrix, rank)
    limit = float(np.abs(matrix).max())
    heat = {
        "type": "heatmap", "zmin": -limit, "zmax": limit, "showscale": False, "hoverinfo": "skip",
        "colorscale": [[0, ORIGINAL.color], [0.5, "#e9e9e6"], [1, AFM.color]],
    }  # fmt: skip
    hidden = {"showticklabels": False, "showgrid": False}
    drawing = figure(
        [{**heat, "z": light(matrix)}, {**heat, "z": light(rebuilt), "xaxis": "x2", "yaxis": "y2"}],
        name="matrix",
        height=300,
        x=axis("original", domain=[0, 0.48], **hidden),
        y=axis("", **hidden),
        xaxis2=axis(f"rank {rank}", domain=[0.52, 1], anchor="y2", **hidden),
        yaxis2=axis("", anchor="x2", **hidden),
    )
    numbers = rank * (_ROWS + _COLUMNS)
    chart(
        drawing, "matrix",
        sentence=f"Rank {rank} of {_ROWS} keeps {percent(1 - lost)} of the variance with {numbers} numbers instead of "
        f"{_ROWS * _COLUMNS}. Beyond rank 3 only noise is left.",
    )  # fmt: skip


def break_even_calculator() -> None:
    """Weights of a layer and of its two factors at every rank."""
    st.markdown("**Try it: which ranks are smaller?**")
    inputs = st.slider("Inputs", 16, 2048, 400, 16, key="even-in")
    outputs = st.slider("Outputs", 16, 2048, 400, 16, key="even-out")
    ranks = np.arange(1, min(inputs, outputs) + 1)
    even = inputs * outputs / (inputs + outputs)
    rank = st.slider("Rank", 1, int(ranks[-1]), min(64, int(ranks[-1])), key=f"even-rank-{ranks[-1]}")
    dense, factors = inputs * outputs, rank * (inputs + outputs)
    ends = [1, int(ranks[-1])]
    traces = [
        {"type": "scatter", "mode": "lines", "name": "one layer", "x": ends, "y": [dense, dense], "line": line(ORIGINAL)},
        {
            "type": "scatter", "mode": "lines", "name": "two factors", "x": ends, "y": [end * (inputs + outputs) for end in ends],
            "line": line(AFM),
        },
        {
            "type": "scatter", "mode": "markers", "name": "this rank", "x": [rank], "y": [factors], "marker": marker(AFM, 12),
        },
    ]  # fmt: skip
    drawing = figure(
        traces, name="break-even", height=300, x=axis("rank"), y=axis("weights", tickformat="~s", rangemode="tozero")
    )
    verdict = f"{percent(1 - factors / dense)} smaller" if factors < dense else "not smaller, so the layer stays dense"
    chart(
        drawing, "break-even",
        sentence=f"At rank {rank} the factors hold {count(factors)} weights, the layer {count(dense)}: {verdict}. "
        f"Break-even is at rank {even:.0f}.",
    )  # fmt: skip


DEMOS: dict[str, Callable[[], None]] = {
    "pca": cloud, "low-rank": low_rank_matrix, "afm": low_rank_matrix, "break-even": break_even_calculator,
}  # fmt: skip


def principal_directions(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues (d,), descending, and eigenvectors (d, d), in columns, of the covariance of `points` (n, d)."""
    centred = points - points.mean(axis=0)
    eigenvalues, eigenvectors = np.linalg.eigh(centred.T @ centred / len(points))
    return eigenvalues[::-1].clip(0), eigenvectors[:, ::-1]


def truncate(matrix: NDArray[np.float64], rank: int) -> tuple[NDArray[np.float64], float]:
    """The best approximation of rank `rank`, and the share of the squared entries that it loses."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    variance = values**2
    return (left[:, :rank] * values[:rank]) @ right[:rank], float(variance[rank:].sum() / variance.sum())


def _cloud_points(ratio: float, angle: float) -> NDArray[np.float64]:
    """(240, 2), centred, so that the caption's numbers are those of the drawn points."""
    points = np.random.default_rng(0).standard_normal((_NUM_POINTS, 2)) * [1.2, 1.2 * ratio]
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned: NDArray[np.float64] = (points - points.mean(axis=0)) @ rotation.T
    return turned


def _patterns(noise: float) -> NDArray[np.float64]:
    """(24, 36): three smooth patterns of decreasing amplitude plus noise."""
    rows, columns = np.linspace(0, 1, _ROWS)[:, None], np.linspace(0, 1, _COLUMNS)[None]
    matrix = sum(np.sin((i + 1) * np.pi * rows + i) * np.cos((i + 1.5) * np.pi * columns) / (i + 1) for i in range(_PLANTED))
    return matrix + noise * 0.5 * np.random.default_rng(1).standard_normal((_ROWS, _COLUMNS))
