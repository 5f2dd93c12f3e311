"""Figures of sensitivity and planning: AUC lost by layer and rank, and predicted AUC against cost."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.figures.by_rank import loss_by_rank
from ctrlab.figures.registry import FIGURES
from ctrlab.figures.text import count, percent, plural, size, times
from ctrlab.figures.theme import AFM, CONTROL, GREY, ORIGINAL, axis, figure, light, line, marker
from ctrlab.plans.budgets import BUDGET_KINDS
from ctrlab.plans.sensitivity import LayerSensitivity

#: Smallest span of an AUC axis, so that differences below the noise stay small in the picture.
_LEAST_SPAN = 0.001


def describe_sensitivity_curve(
    layer: LayerSensitivity, spectrum: LayerSpectrum | None = None, *, chosen_rank: int | None = None
) -> str:
    """Caption: the smallest measured rank that loses less than 0.0001 of AUC, and the variance it discards."""
    free = next((rank for rank, loss in zip(layer.ranks, layer.auc_losses, strict=True) if loss < 0.0001), layer.width)
    if free == layer.width:
        return f"Truncating {layer.layer_name} loses at least 0.0001 of AUC at every rank below break-even."
    text = f"At rank {free} of {layer.width}, truncating {layer.layer_name} alone loses less than 0.0001 of AUC"
    if spectrum is not None:
        lost = spectrum.variance_lost(free)
        text += f" and {percent(lost)} of its variance" if lost > 0 else ""
    return f"{text}."


@FIGURES.register(title="AUC lost by this layer alone", describe=describe_sensitivity_curve)
def sensitivity_curve(
    layer: LayerSensitivity, spectrum: LayerSpectrum | None = None, *, chosen_rank: int | None = None
) -> go.Figure:
    """AUC lost against rank, measured (dots) and fitted (line), in thousandths.

    Args:
        layer: measured with all other layers dense.
        spectrum: used by the description alone, for the variance that the same rank discards.
        chosen_rank: marked when given.
    """
    ranks = [*layer.ranks, layer.width]
    fitted = {
        "type": "scatter", "mode": "lines", "x": ranks, "y": light([*(1000 * loss for loss in layer.auc_losses), 0.0]),
        "name": "fitted", "line": line(ORIGINAL, 2.2), "hovertemplate": "rank %{x}: %{y:.2f} thousandths of AUC<extra></extra>",
    }  # fmt: skip
    dots = {
        "type": "scatter", "mode": "markers", "x": list(layer.ranks), "y": light(1000 * layer.measured_auc_losses()),
        "name": "measured", "marker": marker(ORIGINAL, 7) | {"symbol": "circle-open", "line": {"width": 1.6}},
        "hovertemplate": "rank %{x}: %{y:.2f} thousandths of AUC, measured<extra></extra>",
    }  # fmt: skip
    values = 1000 * np.array([*layer.measured_auc_losses(), *layer.auc_losses, 0.0])
    return loss_by_rank(
        [fitted, dots], values, name=f"sensitivity-{layer.layer_name}", width=layer.width, y="AUC lost (thousandths)",
        chosen_rank=chosen_rank,
    )  # fmt: skip


def describe_planned_front(
    table: pd.DataFrame, original: tuple[float, float], *, planned: tuple[float, float] | None = None,
    measured_auc: float | None = None, kind: str = "parameters",
) -> str:  # fmt: skip
    """Caption: the smallest plan that is predicted to lose at most 0.0005 of AUC."""
    near = table[table["auc"] >= original[1] - 0.0005]
    if near.empty:
        return "Every plan is predicted to lose more than 0.0005 of AUC."
    smallest = near.loc[near["cost"].idxmin()]
    return (
        f"The smallest plan predicted to lose at most 0.0005 of AUC has {_amount(smallest['cost'], kind)}, "
        f"{times(original[0] / max(smallest['cost'], 1))} {'less' if _in_bytes(kind) else 'fewer'} than the original."
    )


def _in_bytes(kind: str) -> bool:
    return BUDGET_KINDS[kind].unit.startswith("bytes")


def _amount(cost: float, kind: str) -> str:
    """A cost with its unit: "153 kB", "21.5 k parameters"."""
    unit = BUDGET_KINDS[kind].unit
    return size(cost) + unit.removeprefix("bytes") if _in_bytes(kind) else f"{count(cost)} {unit}"


@FIGURES.register(title="The best plan of every size", describe=describe_planned_front)
def planned_front(
    table: pd.DataFrame, original: tuple[float, float], *, planned: tuple[float, float] | None = None,
    measured_auc: float | None = None, kind: str = "parameters",
) -> go.Figure:  # fmt: skip
    """Predicted AUC against cost, one clickable point a plan.

    Args:
        table: columns cost and auc (predicted), cheapest first; the row's number is the point's customdata.
        original: its (cost, AUC) on the same rows.
        planned: (cost, predicted AUC) of the current plan; NaN where its AUC is not predicted.
        measured_auc: of the current plan.
        kind: unit of the cost.
    """
    unit = BUDGET_KINDS[kind].unit
    traces: list[dict[str, object]] = [
        {"type": "scatter", "mode": "lines+markers", "name": "best plans, predicted", "x": light(table["cost"]),
         "y": table["auc"].to_numpy(), "customdata": list(range(len(table))), "line": line(AFM, 1.6), "marker": marker(AFM, 7),
         "hovertemplate": f"%{{x:.3s}} {unit}<br>predicted AUC %{{y:.4f}}<br>click to apply<extra></extra>"},
        {"type": "scatter", "mode": "markers", "name": "original", "x": [original[0]], "y": [original[1]],
         "marker": marker(ORIGINAL, 11), "hovertemplate": "original<br>AUC %{y:.4f}<extra></extra>"},
    ]  # fmt: skip
    points = [original[1], *table["auc"]]
    if planned is not None and planned[1] == planned[1]:
        points.append(planned[1])
        traces.append(
            {"type": "scatter", "mode": "markers", "name": "this plan, predicted", "x": [planned[0]], "y": [planned[1]],
             "marker": marker(AFM, 13) | {"symbol": "diamond-open", "line": {"width": 2}},
             "hovertemplate": "this plan<br>predicted AUC %{y:.4f}<extra></extra>"}
        )  # fmt: skip
    if planned is not None and measured_auc is not None:
        points.append(measured_auc)
        traces.append(
            {"type": "scatter", "mode": "markers", "name": "this plan, measured", "x": [planned[0]], "y": [measured_auc],
             "marker": marker(CONTROL, 10), "hovertemplate": "this plan<br>measured AUC %{y:.4f}<extra></extra>"}
        )  # fmt: skip
    top, bottom = max(points), max(min(points), max(points) - 0.03)
    air = max(0.12 * (top - bottom), _LEAST_SPAN / 2)
    return figure(
        traces,
        name=f"front-{kind}",
        height=300,
        x=axis(unit, type="log", tickformat="~s", dtick="D2"),
        y=axis("AUC on validation rows", range=[bottom - air, top + air], tickformat=".4f"),
        clickmode="event+select",
    )


def describe_variance_against_accuracy(table: pd.DataFrame, *, selected: str | None = None) -> str:
    """Caption: the number of layers that lose much variance and no AUC, and the other way round."""
    free = table[(table["variance_lost"] >= 0.05) & (table["auc_loss"] < 0.0001)]
    costly = table[(table["variance_lost"] < 0.05) & (table["auc_loss"] >= 0.0005)]
    text = (
        f"At an eighth of their width, {len(free)} of {plural(len(table), 'layer')} lost at least 5 % of the variance and no AUC"
    )
    return f"{text}; {len(costly) or 'none'} lost less variance and at least 0.0005 of AUC."


@FIGURES.register(title="Variance is not importance", describe=describe_variance_against_accuracy)
def variance_against_accuracy(table: pd.DataFrame, *, selected: str | None = None) -> go.Figure:
    """AUC lost against variance discarded, one point a layer, each truncated alone to an eighth of its width.

    Args:
        table: columns layer, kind ("linear" | "embedding"), variance_lost (0..1), auc_loss, rank.
        selected: the ringed layer.
    """
    traces = []
    for kind, name, role in (("linear", "linear layers", AFM), ("embedding", "tables", ORIGINAL)):
        rows = table[table["kind"] == kind]
        hover = [
            f"{row.layer} at rank {row.rank}<br>variance {percent(row.variance_lost)}, AUC {1000 * row.auc_loss:.2f} thousandths"
            for row in rows.itertuples()
        ]
        ringed = np.where(rows["layer"] == selected, 2.4, 0.0)
        traces.append(
            {"type": "scatter", "mode": "markers", "name": name, "x": light(100 * rows["variance_lost"]),
             "y": light(1000 * rows["auc_loss"]), "customdata": rows["layer"].tolist(), "text": hover, "cliponaxis": False,
             "marker": marker(role, 10) | {"line": {"width": ringed, "color": GREY}},
             "hovertemplate": "%{text}<extra></extra>"}
        )  # fmt: skip
    widest = max(100 * float(table["variance_lost"].max()) if len(table) else 0.0, 10.0)
    highest = max(1000 * float(table["auc_loss"].max()) if len(table) else 0.0, 0.5)
    return figure(
        traces,
        name="variance-against-accuracy",
        height=320,
        x=axis("variance discarded", range=[-0.03 * widest, 1.08 * widest], ticksuffix=" %"),
        y=axis("AUC lost (thousandths)", range=[-0.06 * highest, 1.1 * highest]),
        clickmode="event+select",
    )
