"""What is said about the predicted figures of the current plan, and its parameters as a chart."""

import streamlit as st

from ctrlab.models.structure import Bottleneck
from ctrlab.plans.cost_prediction import Prediction
from ctrlab.ui.components.figure import figure
from ctrlab.ui.format import count
from ctrlab.ui.views.compress.context import CompressContext


def notes(context: CompressContext, prediction: Prediction, bottleneck: Bottleneck) -> None:
    """What holds for the figures above, under these settings."""
    trained, served = count(context.profile.cost.parameters), count(prediction.serving_original.parameters)
    if trained != served:
        st.caption(
            f"Next to the sliders: parameters of the training form ({trained} in all). The figures above count the serving form."
        )
    if not prediction.method.projects_outputs:
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


def cost_chart(context: CompressContext, prediction: Prediction) -> None:
    """Parameters of tables and dense part before and after, and the size while training."""
    before, after = prediction.serving_original, prediction.serving
    figure("cost_bars", before, after, names=("original", "planned"), key="cost-bars", file=f"plan-{context.model.id}", title="")
    if count(prediction.cost_explicit.parameters) != count(after.parameters):
        explicit = count(prediction.cost_explicit.parameters)
        st.caption(f"While fine-tuning: {explicit} parameters, including the projections that are folded away for serving.")
