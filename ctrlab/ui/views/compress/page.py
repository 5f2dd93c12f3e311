"""The Compress page: the plan editor, the measured effect of its ranks, the settings, and the job that compresses."""

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
from ctrlab.ui.components.shrink import make_smaller, shrink_progress
from ctrlab.ui.feedback import empty, escape
from ctrlab.ui.navigation import PAGES
from ctrlab.ui.views.compress import measured
from ctrlab.ui.views.compress.context import load_context
from ctrlab.ui.views.compress.editor import plan_editor, presets, set_ranks, starting_ranks
from ctrlab.ui.views.compress.planner import model_sensitivity, planner
from ctrlab.ui.views.compress.prediction import cost_chart, notes
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
    make_smaller(model, key="compress")
    shrink_progress(model.id)
    spectra_id = selection.spectra or _latest(workspace, model.id)
    if spectra_id is None:
        what = f"Ranks are chosen from the spectra of {escape(model.name)}. Computing them takes one pass over the training rows."
        empty("No spectra yet", what, "Spectra", "Compute spectra")
        return
    st.html(_STYLE)
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
    """The plan on the left, settings and run on the right; a move reruns this fragment only.

    The settings are read first, because everything else depends on them. What shows the measured AUC is drawn last: it waits.
    """
    context = load_context(cache.workspace(), model_id, spectra_id)
    left, right = st.columns([13, 7], gap="large")
    with right, st.container(key="run-panel"):
        settings = read_settings(context)
        lower = st.container()
    ranks = rank_plan.current(spectra_id, context.layers, lambda: starting_ranks(context))
    plan = rank_plan.as_plan(ranks, context.profile)
    config = (settings.config or CompressConfig()).replace(plan=plan)
    answer = measured.request(context, config.spec)
    prediction = predict(context.profile, context.spectra, config.spec)
    with left:
        presets(context, plan)
    with lower:
        run(context, prediction, config, settings)
        cost_chart(context, prediction)
    found = measured.wait(answer)
    with left:
        options = PlanOptions(spec=config.spec, spectra=context.spectra)
        auc = found.preview.auc.estimate if found.preview else None
        planner(context, prediction, model_sensitivity(context), auc, options, partial(set_ranks, context))
        plan_editor(context, ranks, config.spec, found)
        notes(context, prediction, config.bottleneck)
