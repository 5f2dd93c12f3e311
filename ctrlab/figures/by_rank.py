"""The axes that figures of a loss against the rank of one layer share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from ctrlab.figures.theme import AFM, axis, figure, vertical


def loss_by_rank(
    traces: Sequence[Mapping[str, Any]], values: ArrayLike, *, name: str, width: int, y: str, chosen_rank: int | None
) -> go.Figure:
    """The figure of `traces` against the rank, with a logarithmic axis from 1 to the layer's width.

    Args:
        values: thousandths of a loss, all of which are in sight; the range is never below -0.1 to 0.5.
        y: title of that axis.
        chosen_rank: marked when given.
    """
    drawn = np.asarray(values, dtype=np.float64)
    low, high = min(drawn.min(), -0.1), max(drawn.max(), 0.5)
    marks = [vertical(chosen_rank, f"chosen rank {chosen_rank}", role=AFM)] if chosen_rank else []
    return figure(
        [dict(trace) for trace in traces],
        name=name,
        height=320,
        x=axis("rank", type="log", range=[-0.08, np.log10(max(width, 2)) + 0.06], tickformat="d", dtick="D2"),
        y=axis(y, range=[low - 0.08 * (high - low), high + 0.08 * (high - low)]),
        shapes=[rule for rule, _ in marks],
        annotations=[label for _, label in marks],
    )
