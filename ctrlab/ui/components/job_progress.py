"""The progress of a job: bar, message, time left, curves and Cancel; afterwards its end state and Retry.

The block polls the store twice a second while the job is active. It draws the same elements in the same places
throughout, so that nothing on the page moves.
"""

from collections.abc import Callable, Collection

import streamlit as st

from ctrlab.services import jobs
from ctrlab.storage import Job
from ctrlab.ui import cache, format, live, state
from ctrlab.ui.feedback import escape, guarded, sentence
from ctrlab.ui.navigation import PAGES

_POLL_SECONDS = 0.5
_CURVES_HEIGHT = 350
_STATE_LOOKS = {
    "queued": ("gray", ":material/hourglass_empty:"),
    "running": ("blue", ":material/play_circle:"),
    "succeeded": ("green", ":material/check_circle:"),
    "failed": ("red", ":material/error:"),
    "cancelled": ("gray", ":material/cancel:"),
    "interrupted": ("orange", ":material/power_off:"),
}
#: The page that shows each kind of result, in order of preference.
_RESULT_PAGES = {"spectra": "Spectra", "model": "Model", "dataset": "Data", "evaluations": "Compare", "evaluation": "Compare"}


def job_progress(
    job_id: str, *, curves: bool = False, on_success: Callable[[Job], None] | None = None, quiet_success: bool = False
) -> Job:
    """Show the job, live while it is active; the whole page reruns when it ends.

    Args:
        curves: also draw the loss and validation AUC that the job reports.
        on_success: called once, in the browser session that watched the job succeed, e.g. to select its results.
        quiet_success: draw nothing for a job that succeeded.

    Returns:
        The job as it is now.
    """
    job = jobs.get_job(cache.workspace(), job_id)
    watched = _watched_key(job_id)
    if job.active:
        st.session_state[watched] = True
    elif st.session_state.pop(watched, None) is not None and job.state == "succeeded" and on_success is not None:
        on_success(job)
    if job.state == "succeeded" and quiet_success:
        return job
    live = st.fragment(_block, run_every=_POLL_SECONDS if job.active else None)
    live(job_id, curves, job.active)
    return job


def watch(job_id: str) -> None:
    """Select a job that was just submitted, so that this page shows it and calls `on_success` however soon it ends."""
    jobs.ensure_worker(cache.workspace())
    st.session_state[_watched_key(job_id)] = True
    live.follow(job_id)
    state.select(job=job_id)


def job_of_page(kinds: Collection[str], belongs: Callable[[Job], bool] = lambda job: True) -> Job | None:
    """The job that a page should show: the selected one if it fits, else the newest active one, whoever started it.

    Args:
        kinds: kinds of jobs that the page shows.
        belongs: whether a job of these kinds concerns what the page shows.
    """
    workspace, selected = cache.workspace(), state.current().job
    found = [jobs.get_job(workspace, selected)] if selected is not None else []
    found += jobs.list_jobs(workspace, limit=20, states=("queued", "running"))
    return next((job for job in found if job.kind in kinds and belongs(job)), None)


def _watched_key(job_id: str) -> str:
    return f"watched-{job_id}"


def state_badge(job: Job) -> None:
    """The job's state as a coloured badge with an icon."""
    color, icon = _STATE_LOOKS[job.state]
    st.badge(job.state, icon=icon, color=color)  # type: ignore[arg-type]


def result_links(job: Job, *, short: bool = False) -> None:
    """A link to every page that shows a result of the job; only to the first of them when `short`."""
    ids_made = [value for key, value in job.result.items() if key in _RESULT_PAGES and isinstance(value, str)]
    there = cache.workspace().store.artifacts.present(ids_made)
    result = {key: value for key, value in job.result.items() if not isinstance(value, str) or value in there}
    ids = {key: value for key, value in result.items() if key in state.KEYS and isinstance(value, str)}
    names = list(dict.fromkeys(page for kind, page in _RESULT_PAGES.items() if kind in result))
    for page in (PAGES[name] for name in (names[:1] if short else names)):
        params = ids or state.current().params(job=None)
        st.page_link(page.path, label=f"Open in {page.name}", icon=page.icon, query_params=params)


def _block(job_id: str, curves: bool, was_active: bool) -> None:
    with guarded():
        job = jobs.get_job(cache.workspace(), job_id)
        if was_active and not job.active:
            st.rerun()
        with st.container(border=True, key=f"job-{job_id}"):
            _head(job)
            _bar(job)
            _failure(job)
            if curves:
                _curves(job)


def _head(job: Job) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"job-head-{job.id}"):
        state_badge(job)
        st.markdown(f"**{escape(job.title)}**", width="stretch")
        if job.active:
            st.button(
                "Cancelling" if job.cancel_requested else "Cancel", key=f"cancel-{job.id}", icon=":material/stop_circle:",
                disabled=job.cancel_requested, on_click=_cancel, args=(job.id,),
            )  # fmt: skip
            return
        if job.retryable:
            st.button("Retry", key=f"retry-{job.id}", icon=":material/refresh:", on_click=_retry, args=(job.id,))
        if job.id == state.current().job and st.button(
            "Dismiss", key=f"dismiss-{job.id}", icon=":material/close:", type="tertiary"
        ):
            state.select(job=None)
            st.rerun()


def _cancel(job_id: str) -> None:
    jobs.cancel_job(cache.workspace(), job_id)


def _retry(job_id: str) -> None:
    jobs.retry_job(cache.workspace(), job_id)
    watch(job_id)


def _bar(job: Job) -> None:
    if job.state == "queued":
        waiting = jobs.worker_state(cache.workspace())
        behind = " behind " + format.plural(len(waiting.running), "running job") if waiting.running else ""
        st.progress(job.progress, text=f"Waiting for the worker{behind}" if waiting.alive else "Starting the worker")
    elif job.state == "running":
        message = job.message or "working"
        first = message.split(maxsplit=1)[0]
        parts = [message[0].upper() + message[1:] if first.isalpha() else message, f"{100 * job.progress:.0f} %"]
        if job.eta_seconds is not None:
            parts.append(f"{format.duration(job.eta_seconds)} left")
        st.progress(min(job.progress, 1.0), text=escape(" · ".join(parts)))
    else:
        took = f" after {format.duration(job.duration_seconds)}" if job.duration_seconds is not None else ""
        st.caption(f"{job.state.capitalize()}{took}.")


def _failure(job: Job) -> None:
    if job.state == "interrupted":
        st.info("The worker stopped before the job was done. Retry resumes it from its checkpoint.", icon=":material/info:")
    if job.state != "failed":
        return
    if job.error_expected:
        st.error(sentence(job.error or "The job failed"), icon=":material/error:")
        return
    st.error("The job failed with an unexpected error; its log follows.", icon=":material/error:")
    with st.expander("Log", expanded=True):
        st.code(jobs.job_log(cache.workspace(), job.id, max_lines=60) or job.error or "", language=None, height=240)


def _curves(job: Job) -> None:
    from ctrlab.ui.components.figure import figure  # imports pandas and plotly, which nothing needs before the first curve

    table = jobs.job_curves(cache.workspace(), job.id)
    with st.container(
        height=_CURVES_HEIGHT, border=False, key=f"curves-box-{job.id}"
    ):  # fixed, so that the page does not move when the curves appear
        if table.empty:
            st.caption("Loss and AUC appear after the first steps." if job.active else "No step was reported.")
        else:
            figure("training_curves", table, key=f"curves-{job.id}", file=f"training curves {job.id}", title="", topic="training")
