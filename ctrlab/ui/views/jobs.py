"""The Jobs page: all jobs, and the details of the one whose id is in the address."""

import streamlit as st

from ctrlab.services import annotations, jobs
from ctrlab.services.spectra import latest_spectra
from ctrlab.storage import Job, JobState
from ctrlab.ui import cache, format, state
from ctrlab.ui.components import manage
from ctrlab.ui.components.downloads import download_json
from ctrlab.ui.components.job_groups import job_groups
from ctrlab.ui.components.job_progress import job_progress, result_links, state_badge
from ctrlab.ui.components.sweep_form import sweep_form
from ctrlab.ui.feedback import empty, escape, guarded
from ctrlab.ui.navigation import PAGES

_POLL_SECONDS = 1.0
_PAGE_SIZE = 40
_SHOWN = "jobs-shown"
_FILTERS: dict[str, tuple[JobState, ...] | None] = {
    "All": None,
    "Active": ("queued", "running"),
    "Succeeded": ("succeeded",),
    "Not finished": ("failed", "cancelled", "interrupted"),
}
_WITH_CURVES = ("train", "compress")


def render() -> None:
    """The page."""
    workspace = cache.workspace()
    selected = state.current().job
    if selected is not None:
        _detail(jobs.get_job(workspace, selected))
    manage.outcome()
    recent = jobs.list_jobs(workspace, limit=_PAGE_SIZE)
    if not recent:
        empty("No job yet", "Open the sample on the Home page; its job appears here.", "Home", "Open Home")
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="jobs-head"):
        st.segmented_control(
            "Which jobs", list(_FILTERS), default="All", required=True, key="jobs-filter", label_visibility="collapsed",
            persist_state="session",
        )  # fmt: skip
        search = st.text_input("Search", key="jobs-search", placeholder="title, id, note or tag", label_visibility="collapsed",
                               icon=":material/search:", width=240)  # fmt: skip
        _sweep()
        _worker_note()
    active = any(job.active for job in recent)
    st.fragment(_list, run_every=_POLL_SECONDS if active else None)(active, search)


def _sweep() -> None:
    """The form of a sweep of the selected model, which needs spectra."""
    workspace, model_id = cache.workspace(), state.current().model
    if model_id is not None and latest_spectra(workspace, model_id) is not None:
        sweep_form(workspace.store.artifacts.get(model_id))


def _worker_note() -> None:
    worker = jobs.worker_state(cache.workspace())
    if not worker.alive:
        st.caption("No worker is running; the next job starts one.", width="content")
    elif worker.outdated:
        st.caption("The worker runs an older version of the code; it is replaced as soon as it is idle.", width="content")
    else:
        st.caption(f"Worker {worker.pid}: {'busy' if worker.running else 'idle'}", width="content")


def _detail(job: Job) -> None:
    """One job: progress, results, curves, log and settings."""
    job_progress(job.id, curves=job.kind in _WITH_CURVES)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="job-actions"):
        if job.state == "succeeded":
            result_links(job)
        download_json(job.config, job.title, label="Settings", key="job-settings")
        if job.active or job.state == "succeeded":
            st.button("Close", key="close-job", icon=":material/close:", type="tertiary", on_click=_close)
        manage.manage_button(job)
    with st.expander("Log", expanded=job.active):
        st.fragment(_log, run_every=_POLL_SECONDS if job.active else None)(job.id)
    st.subheader("All jobs", anchor=False)


def _close() -> None:
    state.select(job=None)


def _log(job_id: str) -> None:
    with guarded():
        st.code(jobs.job_log(cache.workspace(), job_id) or "The log is empty.", language=None, height=260, wrap_lines=True)


def _list(was_active: bool, search: str) -> None:
    with guarded():
        job_groups()
        chosen = st.session_state.get("jobs-filter") or "All"
        every = annotations.select(jobs.list_jobs(cache.workspace(), limit=None, states=_FILTERS[chosen]), search)
        found = every[: st.session_state.get(_SHOWN, _PAGE_SIZE)]
        if was_active and not any(job.active for job in jobs.list_jobs(cache.workspace(), limit=_PAGE_SIZE)):
            st.rerun()
        for job in found:
            _row(job)
        if not found:
            st.caption("No job matches." if search else "No job in this state.")
        if len(every) > len(found):
            label = f"Show {min(_PAGE_SIZE, len(every) - len(found))} more of {len(every)}"
            st.button(label, key="more-jobs", type="tertiary", icon=":material/expand_more:", on_click=_show_more)
        params = state.current().params(job=None) | {"kind": "Jobs"}
        st.page_link(
            PAGES["Storage"].path, label="Rename, archive or delete many", icon=PAGES["Storage"].icon, query_params=params
        )


def _show_more() -> None:
    st.session_state[_SHOWN] = st.session_state.get(_SHOWN, _PAGE_SIZE) + _PAGE_SIZE


def _row(job: Job) -> None:
    selection = state.current()
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"row-{job.id}"):
        state_badge(job)
        star = ":material/star: " if job.annotation.star else ""
        st.page_link(
            PAGES["Jobs"].path, label=star + escape(job.title), query_params=selection.params(job=job.id), width="stretch"
        )
        st.caption(_progress_text(job), width="content")


def _progress_text(job: Job) -> str:
    if job.state == "running":
        left = f", {format.duration(job.eta_seconds)} left" if job.eta_seconds is not None else ""
        return f"{100 * job.progress:.0f} %{left}"
    if job.state == "queued":
        return "waiting"
    took = f"took {format.duration(job.duration_seconds)} · " if job.duration_seconds is not None else ""
    return took + format.ago(job.created_at)
