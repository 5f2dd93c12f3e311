"""Figures of a layer's singular values and of its cumulative variance."""

import math
from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from ctrlab.decomposition.spectrum import FloatArray, LayerSpectrum
from ctrlab.figures.registry import FIGURES
from ctrlab.figures.text import percent
from ctrlab.figures.theme import AFM, ORIGINAL, THRESHOLD, axis, figure, light, line, thin, vertical

#: Shares of the variance whose ranks are marked.
VARIANCES = (0.90, 0.95, 0.99)
#: Relative to the largest value; smaller values are float32 rounding noise, and the axis ends there.
_FLOOR = 1e-7


def _normalised(values: FloatArray) -> FloatArray:
    """Values divided by the first one; values below the noise floor become NaN, a gap on the log axis."""
    if len(values) == 0 or values[0] <= 0:
        return np.full(len(values), np.nan)
    shares = values / values[0]
    return np.where(shares >= _FLOOR, shares, np.nan)


def describe_spectrum(layer: LayerSpectrum, *, chosen_rank: int | None = None) -> str:
    """Caption: how many singular values of the outputs and of the weights reach 1 % of the largest."""
    if layer.total_variance <= 0:
        return f"The output of {layer.layer_name} is constant on these rows, so it has no spectrum."
    features = int(np.count_nonzero(layer.singular_values >= 0.01 * layer.singular_values[0]))
    text = f"Of the {layer.width} output directions of {layer.layer_name}, {features} {_reach(features)} 1 % of the strongest one"
    weights = layer.weight_singular_values
    if len(weights) and weights[0] > 0:
        text += f"; of its {len(weights)} weight directions {int(np.count_nonzero(weights >= 0.01 * weights[0]))} do"
    return f"{text}."


def _reach(number: int) -> str:
    return "reaches" if number == 1 else "reach"


@FIGURES.register(title="Singular values", describe=describe_spectrum)
def spectrum(layer: LayerSpectrum, *, chosen_rank: int | None = None) -> go.Figure:
    """Singular values of the output features and of the weight, each divided by its largest, on a log axis.

    Args:
        layer: the spectrum; without weight singular values only the features are drawn.
        chosen_rank: marked when given.
    """
    features, weights = _normalised(layer.singular_values), _normalised(layer.weight_singular_values)
    traces = [_curve(features, "output features", line(ORIGINAL, 2.4), "circle")]
    if len(weights):
        traces.append(_curve(weights, "weight", {**line(THRESHOLD, 1.8), "dash": "dash"}, "circle-open"))
    marks = [vertical(chosen_rank, f"chosen rank {chosen_rank}", role=AFM)] if chosen_rank else []
    lowest = np.nanmin(np.concatenate([features, weights]), initial=0.1)
    return figure(
        traces,
        name=f"spectrum-{layer.layer_name}",
        height=320,
        x=axis("direction", range=_span(layer.width), tickformat="d"),
        y=axis(
            "singular value / largest",
            standoff=18,  # ticks with an exponent are wider than plotly thinks
            type="log",
            range=[np.log10(lowest) - 0.15, 0.2],
            exponentformat="power",
            dtick=_decades(lowest),
        ),
        shapes=[rule for rule, _ in marks],
        annotations=[label for _, label in marks],
    )


def _curve(values: FloatArray, name: str, style: dict[str, object], symbol: str) -> dict[str, object]:
    index = thin(len(values))
    few = len(values) <= 32
    return {
        "type": "scatter", "x": (index + 1).astype(np.int32), "y": light(values[index]), "name": name, "line": style,
        "mode": "lines+markers" if few else "lines", "marker": {"size": 6, "symbol": symbol},
        "hovertemplate": f"{name} %{{x}}: %{{y:.3~g}} of the largest<extra></extra>",
    }  # fmt: skip


def _decades(lowest: float) -> int:
    return 1 if lowest > 1e-5 else 2


def _span(width: int) -> list[float]:
    """Axis range with a margin on both sides."""
    air = max(0.5, 0.02 * width)
    return [1 - air, width + air]


def describe_cumulative_variance(
    layer: LayerSpectrum,
    *,
    break_even: float | None = None,
    chosen_rank: int | None = None,
    variances: tuple[float, ...] = VARIANCES,
) -> str:
    """Caption: the rank for 99 % of the variance, and the variance that the chosen rank keeps."""
    if layer.total_variance <= 0:
        return f"The output of {layer.layer_name} is constant on these rows: rank 1 keeps all of it."
    rank = layer.rank_for(0.99)
    where = f"lies in {rank}" if rank < layer.width else f"needs all {rank}"
    text = f"99 % of the variance of {layer.layer_name} {where} of {layer.width} directions"
    if chosen_rank and chosen_rank < layer.width:
        text += f"; rank {chosen_rank} keeps {percent(layer.cumulative[chosen_rank - 1])}"
    elif break_even is not None:
        text += f"; break-even is at rank {math.ceil(break_even)}"
    return f"{text}."


@FIGURES.register(title="Cumulative variance", describe=describe_cumulative_variance)
def cumulative_variance(
    layer: LayerSpectrum,
    *,
    break_even: float | None = None,
    chosen_rank: int | None = None,
    variances: tuple[float, ...] = VARIANCES,
) -> go.Figure:
    """The share of the output variance that the first k directions keep, against k.

    Args:
        layer: the spectrum.
        break_even: rank from which two factors are no smaller than the layer; shaded from there on.
        chosen_rank: marked when given.
        variances: shares whose ranks are marked.
    """
    ranks = {variance: layer.rank_for(variance) for variance in variances}
    index = thin(layer.width, keep=[rank - 1 for rank in (*ranks.values(), chosen_rank or 1)])
    curve = {
        "type": "scatter", "x": (index + 1).astype(np.int32), "y": light(100 * layer.cumulative[index]), "name": "variance kept",
        "mode": "lines+markers" if layer.width <= 32 else "lines", "line": line(ORIGINAL, 2.4), "marker": {"size": 6},
        "hovertemplate": "rank %{x} keeps %{y:.2f} %<extra></extra>", "showlegend": False,
    }  # fmt: skip
    shapes, annotations = _break_even_region(layer.width, break_even)
    if chosen_rank:
        rule, label = vertical(chosen_rank, f"chosen rank {chosen_rank}", level=1, role=AFM)
        shapes, annotations = [*shapes, rule], [*annotations, label | {"y": 0.45}]
    lowest = float(100 * layer.cumulative[0]) if layer.width else 0.0
    return figure(
        [curve, _variance_marks(layer, ranks)],
        name=f"cumulative-{layer.layer_name}",
        height=320,
        x=axis("rank", range=_span(layer.width), tickformat="d"),
        y=axis("variance kept", range=[max(0.0, min(lowest, 88.0) - 4), 102], ticksuffix=" %"),
        shapes=shapes,
        annotations=annotations,
    )


def _variance_marks(layer: LayerSpectrum, ranks: Mapping[float, int]) -> dict[str, object]:
    """Markers on the curve at the ranks for each share of the variance; equal ranks have one label."""
    labels: dict[int, list[str]] = {}
    for variance, rank in ranks.items():
        labels.setdefault(rank, []).append(f"{100 * variance:.0f}")
    return {
        "type": "scatter", "mode": "markers+text", "name": "90 / 95 / 99 %", "showlegend": False, "cliponaxis": False,
        "x": np.asarray(list(labels), dtype=np.int32), "y": light([100 * layer.cumulative[rank - 1] for rank in labels]),
        "text": [f"{'/'.join(parts)} %: k = {rank}" for rank, parts in labels.items()],
        "textposition": "bottom right", "textfont": {"size": 11},
        "marker": {"size": 9, "color": ORIGINAL.color, "symbol": "circle-open", "line": {"width": 2}},
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _break_even_region(width: int, break_even: float | None) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    if break_even is None or break_even >= width:
        return [], []
    shade = {
        "type": "rect", "x0": break_even, "x1": _span(width)[1], "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
        "line": {"width": 0}, "fillcolor": "rgba(128,133,136,0.13)",
    }  # fmt: skip
    rule, label = vertical(break_even, f"stays dense from {math.ceil(break_even)}", role=THRESHOLD)
    right_half = break_even > 0.6 * width
    label |= {"y": 0.16, "xanchor": "right" if right_half else "left", "xshift": -4 if right_half else 4}
    return [shade, rule], [label]
