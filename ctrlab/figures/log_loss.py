"""The figure of the log loss that a rank of one layer costs: predicted from gradients, and measured."""

import numpy as np
import plotly.graph_objects as go

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.figures.by_rank import loss_by_rank
from ctrlab.figures.registry import FIGURES
from ctrlab.figures.text import difference
from ctrlab.figures.theme import AFM, ORIGINAL, light, line, marker, thin
from ctrlab.plans.sensitivity import LayerSensitivity


def describe_log_loss_rise(
    layer: LayerSpectrum, measured: LayerSensitivity | None = None, *, chosen_rank: int | None = None
) -> str:
    """Caption: predicted and measured rise of the log loss at the rank for 95 % of the variance."""
    rank = layer.rank_for(0.95)
    parts = []
    predicted = layer.loss_increase(rank)
    if predicted is not None:
        parts.append(f"loss-weighted AFM is predicted to cost {difference(predicted)}")
    if measured is not None:
        parts.append(f"AFM was measured to cost {difference(measured.log_loss_increase(rank))}")
    what = " and ".join(parts) or "nothing is known yet"
    return f"At rank {rank} (95 % of the variance) of {layer.layer_name} alone, {what} of log loss."


@FIGURES.register(title="Log loss lost by this layer alone", describe=describe_log_loss_rise)
def log_loss_rise(layer: LayerSpectrum, measured: LayerSensitivity | None = None, *, chosen_rank: int | None = None) -> go.Figure:
    """Rise of the log loss against rank, in thousandths: predicted to second order (line), measured and fitted (dots).

    Args:
        layer: without gradients of the loss only the measured dots are drawn.
        measured: the layer truncated by AFM, all others dense.
        chosen_rank: marked when given.
    """
    traces = [*_predicted(layer), *_measured(measured)]
    values = np.concatenate([np.zeros(1), *(np.asarray(trace["y"], dtype=np.float64) for trace in traces)])
    return loss_by_rank(
        traces, values, name=f"log-loss-{layer.layer_name}", width=layer.width, y="log loss added (thousandths)",
        chosen_rank=chosen_rank,
    )  # fmt: skip


def _predicted(layer: LayerSpectrum) -> list[dict[str, object]]:
    if layer.loss_eigenvalues is None:
        return []
    tail = np.append(np.cumsum(layer.loss_eigenvalues[::-1])[::-1], 0.0)[1:] / 2  # of ranks 1..d
    index = thin(layer.width)
    return [{
        "type": "scatter", "mode": "lines", "name": "predicted, loss-weighted AFM", "x": (index + 1).astype(np.int32),
        "y": light(1000 * tail[index]), "line": line(AFM, 2.2),
        "hovertemplate": "rank %{x}: %{y:.3f} thousandths of log loss, predicted<extra></extra>",
    }]  # fmt: skip


def _measured(layer: LayerSensitivity | None) -> list[dict[str, object]]:
    if layer is None:
        return []
    rises = 1000 * np.array(layer.log_loss_increases)
    return [{
        "type": "scatter", "mode": "markers", "name": "measured, AFM", "x": list(layer.ranks), "y": light(rises),
        "marker": marker(ORIGINAL, 7) | {"symbol": "circle-open", "line": {"width": 1.6}},
        "hovertemplate": "rank %{x}: %{y:.2f} thousandths of log loss, measured<extra></extra>",
    }]  # fmt: skip
