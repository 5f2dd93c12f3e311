"""The Home page: what this is, the way in, and what was done lately."""

import streamlit as st

from ctrlab.services import jobs, sample
from ctrlab.storage import Job
from ctrlab.ui import cache, format, state
from ctrlab.ui.components.job_progress import job_of_page, job_progress, result_links, state_badge, watch
from ctrlab.ui.feedback import escape, guarded
from ctrlab.ui.navigation import PAGES

_INTRODUCTION = """\
Click-through-rate models spend nearly all of their memory and time on layers whose outputs use only a few of their \
directions. ctrlab shows you which, lets you choose how many to keep while size, cost and error move with the slider, \
and then makes the smaller model in the background. \
At the end the original and the compressed model stand side by side: AUC, size and speed, measured on the same rows.
"""
_STEPS = {
    "Data": "Encode a click log: the sample, your own table, or a known format.",
    "Model": "Train DeepFM or DCN on it, or bring a checkpoint.",
    "Spectra": "See how many directions every layer and table really uses.",
    "Compress": "Choose ranks, watch the prediction, run AFM and fine-tuning.",
    "Compare": "AUC, parameters, latency and throughput, side by side.",
}


def render() -> None:
    """The page."""
    st.markdown(_INTRODUCTION)
    _way_in()
    _flow()
    _recent()


def _way_in() -> None:
    job = job_of_page(("open_sample",))
    opening = job is not None and job.active
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="way-in"):
        st.button(
            "Try the sample",
            type="primary",
            icon=":material/play_arrow:",
            key="try-sample",
            disabled=opening,
            on_click=_ask_for_sample,
            help="A small click log with a trained DeepFM, ready to look at",
        )
        st.page_link(
            PAGES["Data"].path, label="Use your own data", icon=":material/upload_file:", query_params=state.current().params()
        )
    if st.session_state.pop("open-sample", False):
        _open_sample()
    if job is not None:
        job_progress(job.id, on_success=_show_spectra, quiet_success=True)


def _ask_for_sample() -> None:
    st.session_state["open-sample"] = True


def _open_sample() -> None:
    """To the spectra at once when the sample was opened before, else by way of a job."""
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
    in_hand = state.hold(dataset=ids["dataset"], model=ids["model"], spectra=ids["spectra"], job=None)
    st.switch_page(PAGES["Spectra"].path, query_params=in_hand.params())


def _flow() -> None:
    """The five steps, each a link."""
    in_hand = state.current()
    st.subheader("Five steps", anchor=False)
    for number, (column, (name, text)) in enumerate(zip(st.columns(len(_STEPS), gap="small"), _STEPS.items(), strict=True), 1):
        with column, st.container(border=True, height="stretch", key=f"step-{name}"):
            st.page_link(
                PAGES[name].path, label=f"**{number} {name}**", icon=PAGES[name].icon, query_params=in_hand.params(job=None)
            )
            st.caption(text)


def _recent() -> None:
    recent = jobs.list_jobs(cache.workspace(), limit=6)
    st.subheader("Recent runs", anchor=False)
    if not recent:
        st.caption("Nothing has run yet. The sample takes a few seconds.")
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
