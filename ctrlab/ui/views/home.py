"""The Home page: where one was, three ways to start, recent results and recent runs."""

from pathlib import Path

import streamlit as st

import ctrlab
from ctrlab.services import jobs, sample
from ctrlab.services.models import role_of
from ctrlab.storage import Artifact, Job
from ctrlab.ui import cache, format, state
from ctrlab.ui.chart_code import load_chart_code
from ctrlab.ui.components.job_progress import job_of_page, job_progress, result_links, state_badge, watch
from ctrlab.ui.components.recent_results import Result, recent_results, results
from ctrlab.ui.components.shrink import make_smaller, shrink_progress
from ctrlab.ui.feedback import escape, guarded
from ctrlab.ui.navigation import PAGES

_INTRODUCTION = """\
Click-through-rate models spend most of their memory and time on layers and tables whose outputs use only a few of their \
directions. See how many each one uses, choose the ranks while size, cost and AUC follow, \
and take the smaller model away with the proof that it loses nothing.
"""
#: Of the README; the pages of the sample, taken by `make screenshots`.
_PICTURE = Path(ctrlab.__file__).parents[1] / "docs" / "images" / "compare.png"
_RUNS = 4


def render() -> None:
    """The page."""
    found = results(cache.workspace())
    job = job_of_page(("open_sample",))
    st.markdown(_INTRODUCTION)
    _continue(found)
    _starts(job)
    if st.session_state.pop("open-sample", False):
        _open_sample()
    if job is not None:
        if job.active:
            load_chart_code()
        job_progress(job.id, on_success=_show_spectra, quiet_success=True)
    if found:
        recent_results(found)
    elif _PICTURE.exists():
        with st.container(key="result-picture"):
            st.image(
                str(_PICTURE), width="stretch", caption="What you get: the sample's model beside its compressed version.",
                alt="Compare page: the verdict on a compressed model, the table of both models and AUC against size",
            )  # fmt: skip
    _recent_runs()


def _continue(found: list[Result]) -> None:
    """The newest model and the step that comes next for it."""
    models = cache.workspace().store.artifacts.list(kind="model")
    if not models:
        return
    newest = found[0] if found and found[0].model.id == models[0].id else None
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="continue"):
        with st.container(gap=None, width="stretch", key="continue-text"):
            st.caption("Continue")
            st.markdown(f"**{escape(models[0].name)}**" + (f", {newest.text}" if newest else ""))
        with st.container(width="content", horizontal=True, vertical_alignment="center", key="continue-link"):
            if role_of(models[0]) == "original":
                make_smaller(models[0], key="home")
            _next_step(models[0], newest)
    shrink_progress(models[0].id)


def _next_step(model: Artifact, result: Result | None) -> None:
    """The comparison of a compressed model; for an original its spectra, or its ranks where it has them."""
    if result is not None:
        result.link("Compare with the original")
        return
    spectra = cache.workspace().store.artifacts.list(kind="spectra", parent=model.id)
    page, label = ("Compress", "Choose ranks") if spectra else ("Spectra", "Look at its spectra")
    params = state.Selection(model=model.id, spectra=spectra[0].id if spectra else None).params()
    st.page_link(PAGES[page].path, label=label, icon=":material/arrow_forward:", query_params=params)


def _starts(job: Job | None) -> None:
    """The sample, a file, a lesson."""
    left, middle, right = st.columns(3, gap="small")
    with left, _card("sample", "Try the sample", "A small click log with a trained DeepFM: spectra in a few seconds."):
        st.button(
            "Try the sample", type="primary", icon=":material/play_arrow:", key="try-sample", on_click=_request_sample,
            disabled=job is not None and job.active,
        )  # fmt: skip
    with (
        middle,
        _card("file", "Your own clicks", "A table with a column of clicks: CSV, TSV, JSON lines, Parquet, plain or compressed."),
    ):
        uploads = st.file_uploader(
            "Drop a table here", key="home-upload", accept_multiple_files=True, label_visibility="collapsed"
        )
        if uploads:
            _inspect(uploads)
        st.page_link(
            PAGES["Data"].path,
            label="Use your own data",
            icon=":material/upload_file:",
            query_params=state.current().params(job=None),
        )
    with (
        right,
        _card("lesson", "A lesson", "Why a layer of 256 outputs may need one direction: pictures that move, no model needed."),
    ):
        st.page_link(
            PAGES["Learn"].path, label="Start the lesson", icon=":material/school:", query_params=state.current().params(job=None)
        )


def _card(key: str, title: str, text: str) -> "st.delta_generator.DeltaGenerator":
    card = st.container(border=True, height="stretch", key=f"start-{key}")
    card.markdown(f"**{title}**")
    card.caption(text)
    return card


def _inspect(uploads: list["st.runtime.uploaded_file_manager.UploadedFile"]) -> None:
    """Read the first rows and go to the draft on the Data page."""
    from ctrlab.ui.views.data_sources import inspect_uploads  # loads polars, which a first page does without

    with guarded() as outcome, st.spinner("Reading the first rows", show_time=True):
        inspect_uploads(uploads)
    if not outcome.failed:
        st.switch_page(PAGES["Data"].path, query_params=state.current().params(job=None))


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


def _recent_runs() -> None:
    recent = jobs.list_jobs(cache.workspace(), limit=_RUNS)
    if not recent:
        return
    st.subheader("Recent runs", anchor=False)
    for job in recent:
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"recent-{job.id}"):
            state_badge(job)
            st.page_link(
                PAGES["Jobs"].path, label=escape(job.title), query_params=state.current().params(job=job.id), width="stretch"
            )
            st.caption(format.ago(job.created_at), width="content")
            if job.state == "succeeded":
                result_links(job, short=True)
