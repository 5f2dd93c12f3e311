"""The predicted size, cost and variance lost of the current plan."""

import streamlit as st

from ctrlab.models.structure import Bottleneck
from ctrlab.plans.cost_prediction import Prediction
from ctrlab.ui import format
from ctrlab.ui.components.explain import explain
from ctrlab.ui.components.figure import figure
from ctrlab.ui.format import count, percent, size, times
from ctrlab.ui.views.compress.context import CompressContext


def prediction_panel(prediction: Prediction, bottleneck: Bottleneck) -> None:
    """Predicted parameters, size, MACs and variance lost of the plan."""
    before, after = prediction.serving_original, prediction.serving
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="head-prediction"):
        st.markdown("**Prediction**")
        explain("afm", key="explain-prediction")
    factor = before.size_bytes / max(after.size_bytes, 1)
    known = prediction.method.projects_outputs
    lost = percent(prediction.variance_lost_total) if known else format.NONE
    st.html(
        '<div class="headline" role="status">'
        f"<div><b>{count(after.parameters)}</b><span>parameters</span></div>"
        f"<div><b>{_smaller(factor)}</b><span>smaller</span></div>"
        f"<div><b>{lost}</b><span>variance lost{'' if bottleneck != 'relu' else ' *'}</span></div></div>"
    )
    rows = [
        ("Tables", before.parameters_tables, after.parameters_tables, count, "parameters"),
        ("Dense part", before.parameters_dense, after.parameters_dense, count, "parameters"),
        ("Size", before.size_bytes, after.size_bytes, size, ""),
        ("Compute per row", before.macs, after.macs, count, "MACs"),
    ]
    body = "".join(
        f"<tr><th scope='row'>{name} <small>{unit}</small></th><td>{write(old)}</td><td>{write(new)}</td>"
        f"<td>{format.NONE if new >= old else times(old / max(new, 1))}</td></tr>"
        for name, old, new, write, unit in rows
    )
    heads = "".join(f"<th scope='col'>{head}</th>" for head in ("Serving form", "Original", "Planned", "Smaller"))
    st.html(f"<table class='costs'><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>")
    if not known:
        st.caption(
            f"Variance lost and AUC are predicted for AFM alone: {prediction.method.title} does not keep the directions that the "
            "spectra measure. Its AUC is measured."
        )
    if not prediction.method.keeps_latents:
        st.caption(
            "The variance lost counts linear layers alone: tables of this method are not projections of the original ones."
        )
    if bottleneck == "relu":
        st.caption("\\* With a ReLU between the factors the variance lost does not hold before fine-tuning.")


def _smaller(factor: float) -> str:
    """How much smaller: a factor, or a share where the factor would read 1.0x."""
    if times(factor) != times(1.0):
        return times(factor)
    return percent(max(0.0, 1 - 1 / factor), 0)


def cost_chart(context: CompressContext, prediction: Prediction) -> None:
    """Parameters of tables and dense part before and after, and the size while training."""
    before, after = prediction.serving_original, prediction.serving
    figure("cost_bars", before, after, names=("original", "planned"), key="cost-bars", file=f"plan-{context.model.id}", title="")
    if count(prediction.cost_explicit.parameters) != count(after.parameters):
        explicit = count(prediction.cost_explicit.parameters)
        st.caption(f"While fine-tuning: {explicit} parameters, including the projections that are folded away for serving.")
