"""The Compress page: a slider a layer, the predicted and measured effect of the ranks, and the job that compresses."""

from functools import partial
from pathlib import Path

import streamlit as st

from ctrlab.plans.configs import CompressConfig
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.rank_problem import PlanOptions
from ctrlab.services import models, spectra
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.ui import cache, state
from ctrlab.ui.components import rank_plan
from ctrlab.ui.feedback import empty, escape
from ctrlab.ui.navigation import PAGES
from ctrlab.ui.views.compress import measured
from ctrlab.ui.views.compress.context import load_context
from ctrlab.ui.views.compress.planner import model_sensitivity, planner
from ctrlab.ui.views.compress.prediction import cost_chart, prediction_panel
from ctrlab.ui.views.compress.ranks import presets, set_ranks, sliders, starting_ranks, track_style
from ctrlab.ui.views.compress.run import run
from ctrlab.ui.views.compress.settings import read_settings

_STYLE = Path(__file__).parents[2] / "assets" / "compress.css"


def render() -> None:
    """The page."""
    workspace, selection = cache.workspace(), state.current()
    if selection.model is None:
        empty(
            "No model selected",
            "Choose or train a model to compress, or open the sample.",
            "Model",
            "Choose a model",
        )
        return
    model = workspace.store.artifacts.get(selection.model)
    if cache.model_profile(workspace, model.id).compressed:
        _is_compressed(workspace, model)
        return
    spectra_id = selection.spectra or _latest(workspace, model.id)
    if spectra_id is None:
        what = f"Ranks are chosen from the spectra of {escape(model.name)}. Computing them takes one pass over the training rows."
        empty("No spectra yet", what, "Spectra", "Compute spectra")
        return
    st.html(_STYLE)
    st.html(track_style(workspace, model.id, spectra_id))
    _workbench(model.id, spectra_id)


def _latest(workspace: Workspace, model_id: str) -> str | None:
    found = spectra.latest_spectra(workspace, model_id)
    return state.select(spectra=found.id).spectra if found else None


def _is_compressed(workspace: Workspace, model: Artifact) -> None:
    original = models.original_of(workspace, model)
    st.markdown(f"**{escape(model.name)}** is already compressed. Choose ranks for its original, {escape(original.name)}.")
    st.page_link(
        PAGES["Compress"].path, label=f"Compress {escape(original.name)}", icon=":material/arrow_back:",
        query_params=state.current().params(model=original.id, spectra=None, job=None),
    )  # fmt: skip


@st.fragment
def _workbench(model_id: str, spectra_id: str) -> None:
    """Sliders on the left, prediction and run on the right; a slider step reruns this fragment only.

    The settings are drawn below the sliders but first, because sliders and prediction depend on them.
    """
    context = load_context(cache.workspace(), model_id, spectra_id)
    left, right = st.columns([13, 8], gap="large")
    with left:
        upper = st.container(key="ranks")
        settings = read_settings(context)
    ranks = rank_plan.current(spectra_id, context.layers, lambda: starting_ranks(context))
    plan = rank_plan.as_plan(ranks, context.profile)
    config = (settings.config or CompressConfig()).replace(plan=plan)
    prediction = predict(context.profile, context.spectra, config.spec)
    sensitivity = model_sensitivity(context)
    preview = measured.request(context, config.spec)
    found = measured.known(preview)
    with upper:
        presets(context, plan)
        options = PlanOptions(spec=config.spec, spectra=context.spectra)
        measured_auc = found.auc.estimate if found else None
        planner(context, prediction, sensitivity, measured_auc, options, partial(set_ranks, context))
        sliders(context, ranks, prediction, shared_basis=config.basis == "shared")
    with right, st.container(key="prediction"):
        prediction_panel(prediction, config.bottleneck)
        slot = st.empty()
        run(context, prediction, config, settings)
        cost_chart(context, prediction)
    # Last, because it waits: the rest of the page is already in the browser while the plan is measured.
    arrived = measured.show(slot, preview, prediction, sensitivity)
    if arrived and st.session_state.get("planner"):
        st.rerun()  # the front shows the measured plan too
