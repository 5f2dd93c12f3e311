"""The Home page: introduction, the button that opens the sample, the five steps, recent runs."""

import streamlit as st

from ctrlab.models.configs import MODELS
from ctrlab.services import jobs, sample
from ctrlab.storage import Job
from ctrlab.ui import cache, format, state
from ctrlab.ui.components.job_progress import job_of_page, job_progress, result_links, state_badge, watch
from ctrlab.ui.feedback import escape, guarded
from ctrlab.ui.navigation import PAGES

_INTRODUCTION = """\
Click-through-rate models spend most of their memory and time on layers and tables whose outputs use only a few of their \
directions. ctrlab shows how many each one uses, predicts size, cost and error as you choose the ranks, \
and compresses and fine-tunes the model in the background. \
Then it compares the original and the compressed model on the same rows: AUC, size and speed.
"""
_STEPS = {
    "Data": "Encode a click log: the sample, your own table, or a known format.",
    "Model": f"Train one of {len(MODELS.names())} architectures, or import a checkpoint.",
    "Spectra": "See how many directions every layer and table uses.",
    "Compress": "Choose ranks, check the prediction, compress and fine-tune.",
    "Compare": "AUC, parameters, latency and throughput, side by side.",
}


def render() -> None:
    """The page."""
    st.markdown(_INTRODUCTION)
    _start()
    _flow()
    _recent()


def _start() -> None:
    job = job_of_page(("open_sample",))
    opening = job is not None and job.active
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="start"):
        st.button(
            "Try the sample",
            type="primary",
            icon=":material/play_arrow:",
            key="try-sample",
            disabled=opening,
            on_click=_request_sample,
            help="A small click log with a trained DeepFM and its spectra",
        )
        st.page_link(
            PAGES["Data"].path, label="Use your own data", icon=":material/upload_file:", query_params=state.current().params()
        )
    if st.session_state.pop("open-sample", False):
        _open_sample()
    if job is not None:
        job_progress(job.id, on_success=_show_spectra, quiet_success=True)


def _request_sample() -> None:
    st.session_state["open-sample"] = True


def _open_sample() -> None:
    """Go to the spectra if the sample was opened before; else queue the job that opens it."""
    with guarded():
        workspace = cache.workspace()
        ids = sample.sample_ids(workspace)
        if ids is not None:
            _go_to_spectra(ids)
        watch(sample.submit_open_sample(workspace))
        st.rerun()


def _show_spectra(job: Job) -> None:
    _go_to_spectra(job.result)


def _go_to_spectra(ids: dict[str, str]) -> None:
    selection = state.select(dataset=ids["dataset"], model=ids["model"], spectra=ids["spectra"], job=None)
    st.switch_page(PAGES["Spectra"].path, query_params=selection.params())


def _flow() -> None:
    """The five steps, each a link."""
    selection = state.current()
    st.subheader("Five steps", anchor=False)
    for number, (column, (name, text)) in enumerate(zip(st.columns(len(_STEPS), gap="small"), _STEPS.items(), strict=True), 1):
        with column, st.container(border=True, height="stretch", key=f"step-{name}"):
            st.page_link(
                PAGES[name].path, label=f"**{number} {name}**", icon=PAGES[name].icon, query_params=selection.params(job=None)
            )
            st.caption(text)


def _recent() -> None:
    recent = jobs.list_jobs(cache.workspace(), limit=6)
    st.subheader("Recent runs", anchor=False)
    if not recent:
        st.caption("No job yet. Opening the sample takes a few seconds.")
        return
    for job in recent:
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"recent-{job.id}"):
            state_badge(job)
            st.page_link(
                PAGES["Jobs"].path, label=escape(job.title), query_params=state.current().params(job=job.id), width="stretch"
            )
            st.caption(format.ago(job.created_at), width="content")
            if job.state == "succeeded":
                result_links(job, short=True)
