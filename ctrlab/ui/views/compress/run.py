"""The button that compresses, the progress of its job, and the result."""

import streamlit as st

from ctrlab.plans.configs import CompressConfig
from ctrlab.plans.cost_prediction import Prediction
from ctrlab.services import compression as service
from ctrlab.services import controls
from ctrlab.services.comparison import latest_evaluation
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Job
from ctrlab.ui import format, state
from ctrlab.ui.components.task import task
from ctrlab.ui.feedback import escape
from ctrlab.ui.format import count, size
from ctrlab.ui.navigation import PAGES
from ctrlab.ui.views.compress.context import CompressContext
from ctrlab.ui.views.compress.settings import RunSettings

_ALL_DENSE = "every layer is dense; lower the rank of at least one layer below break-even, or choose fewer bits"
_NO_SMALLER = "the result would be no smaller than the original; lower the ranks, or choose fewer bits"
#: Key of the number of results queued by this session.
_NAMED = "results-named"
_FAULTY = "correct the settings first"


def run(context: CompressContext, prediction: Prediction, config: CompressConfig, settings: RunSettings) -> None:
    """The button that queues the compression, and the progress of its job."""
    after = prediction.serving
    left = f"{count(after.parameters)} parameters" if config.precision == "float32" else size(after.size_bytes)
    job_config = service.CompressJobConfig(
        model_id=context.model.id,
        spectra_id=context.spectra_id,
        compress=config,
    )
    key, default = f"result-name-{st.session_state.get(_NAMED, 0)}", service.compressed_name(context.workspace, job_config)
    name = st.text_input("Name of the result", key=key, max_chars=120, placeholder=default)
    job_config = job_config.replace(name=name.strip())
    task(
        "compress",
        f"Compress to {left}",
        lambda: _submit(context.workspace, job_config, settings),
        belongs=lambda job: job.config.get("model_id") == context.model.id,
        disabled=context.abilities.why_not("compress").rstrip(".") or _fault(prediction, config, settings),
        done=lambda job: _done(context, job),
    )


def _fault(prediction: Prediction, config: CompressConfig, settings: RunSettings) -> str:
    """Why these settings cannot be run; "" where they can."""
    return _FAULTY if settings.config is None else _pointless(prediction, config)


def _pointless(prediction: Prediction, config: CompressConfig) -> str:
    """Why the run would make nothing smaller; "" where it does."""
    if not prediction.ranks and config.precision == "float32":
        return _ALL_DENSE
    before, after = prediction.serving_original, prediction.serving
    return _NO_SMALLER if size(after.size_bytes) == size(before.size_bytes) else ""


def _submit(workspace: Workspace, config: service.CompressJobConfig, settings: RunSettings) -> str:
    """Queue the compression, with its controls where they are chosen; returns the id of the compression's job.

    The next result is not named alike: the field of the name is a new one.
    """
    st.session_state[_NAMED] = st.session_state.get(_NAMED, 0) + 1
    if settings.controls:
        return controls.submit_with_controls(workspace, config, settings.seeds)[0]
    return service.submit_compress(workspace, config)


def _done(context: CompressContext, job: Job) -> None:
    """What was made, its AUC, and the way to its comparison, which has its controls."""
    workspace = context.workspace
    compressed = workspace.store.artifacts.get(job.result["model"])
    cost, evaluation = compressed.summary["cost_serving"], latest_evaluation(workspace, compressed.id)
    measured = evaluation.summary if evaluation else None
    auc = f", {format.accuracy(measured)} on {measured['split']} rows" if measured else ""
    before = latest_evaluation(workspace, context.model.id)
    if measured and before and before.summary["split"] == measured["split"]:
        auc += f", where the original has {format.accuracy(before.summary)}"
    st.success(
        f"{escape(compressed.name)} is ready: {count(cost['parameters_tables'] + cost['parameters_dense'])} parameters{auc}.",
        icon=":material/check_circle:",
    )
    link = {"models": f"{context.model.id},{compressed.id}"}
    arms = controls.arms_of(workspace, service.CompressJobConfig.from_dict(job.config))
    if len(arms) > 1:
        link["run"] = job.id
        running = sum(arm.active for arm in arms)
        still = f"{format.plural(running, 'control')} still to finish; the comparison adds each as it ends."
        st.caption(still if running else "Its controls are in the comparison.")
    st.page_link(
        PAGES["Compare"].path, label="Compare with the original", icon=":material/arrow_forward:",
        query_params=state.current().params(job=None) | link,
    )  # fmt: skip
