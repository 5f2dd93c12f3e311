"""What follows the jobs on every page without a click: badge, toast, tab title, and a worker that is started again.

A fragment in the sidebar polls the store. It keeps the jobs that this browser session has seen active; one of them that is active
no longer has ended.
"""

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.services import jobs
from ctrlab.services.of_model import newest_of_model
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Job
from ctrlab.storage.records import ACTIVE_STATES
from ctrlab.ui import cache, format, state
from ctrlab.ui.feedback import escape, sentence
from ctrlab.ui.navigation import PAGES, Page

_POLL_SECONDS = 1.5
#: While no job of this session is active: a poll carries the values of all widgets, and most pages wait for nobody.
_IDLE_POLL_SECONDS = 6.0
_ACTIVE = "live-active"
_TITLE = "live-title"
_REPORTS = "live-reports"
_WITH_PAGE = "live-with-page"
_ICONS = {
    "succeeded": ":material/check_circle:",
    "failed": ":material/error:",
    "cancelled": ":material/cancel:",
    "interrupted": ":material/power_off:",
}
_WORDS = {"succeeded": "Done", "failed": "Failed", "cancelled": "Cancelled", "interrupted": "Interrupted"}
#: Pages that show results of jobs whose progress they do not show; they run again when one ends.
_REFRESHED = ("Home", "Compare")


def jobs_link(shown: Page) -> None:
    """The sidebar's link to the jobs with their number, kept up to date; call it on every page, inside the sidebar."""
    st.session_state[_WITH_PAGE] = True
    seconds = _POLL_SECONDS if st.session_state.get(_ACTIVE) else _IDLE_POLL_SECONDS
    st.fragment(_follow, run_every=seconds)(shown.name)


def announce() -> None:
    """Show a toast for every job that has ended; call it when nothing can restart the page any more, which would drop them."""
    for text, icon in st.session_state.pop(_REPORTS, ()):
        st.toast(text, icon=icon, duration="long")


def follow(job_id: str) -> None:
    """Report the end of a job that was just submitted, however soon it ends."""
    st.session_state[_ACTIVE] = {*st.session_state.get(_ACTIVE, ()), job_id}


def leave_page() -> None:
    """Forget the end of a job in the tab's title: another page is shown now."""
    st.session_state.pop(_TITLE, None)


def tab_title(shown: Page) -> str:
    """Title of the browser's tab: the page, after what runs or has ended."""
    name = "ctrlab" if shown.name == "Home" else f"{shown.title} \N{MIDDLE DOT} ctrlab"
    note = st.session_state.get(_TITLE)
    return f"{note} \N{MIDDLE DOT} {name}" if note else name


def _follow(page: str) -> None:
    shown, workspace = PAGES[page], cache.workspace()
    number, ended = 0, list[Job]()
    try:
        active = {job.id for job in jobs.list_jobs(workspace, limit=None, states=ACTIVE_STATES)}
        if active:
            cache.keep_worker_alive(workspace)
        ended = _ended(workspace, active)
        number = len(active)
    except CtrlabError:
        pass  # the store is away for a moment; the page itself says so where it matters
    before = st.session_state.get(_TITLE)
    for job in ended:
        report = _report(workspace, job), _ICONS[job.state]
        st.session_state[_REPORTS] = [*st.session_state.get(_REPORTS, ()), report]
        st.session_state[_TITLE] = f"{_WORDS[job.state]}: {job.title}"
    if number and not ended:
        st.session_state[_TITLE] = f"{number} running"
    elif not number and str(before).endswith(" running") and not ended:
        st.session_state.pop(_TITLE)
    if st.session_state.get(_TITLE) != before:
        st.set_page_config(page_title=tab_title(shown))
    label = f"Jobs \N{MIDDLE DOT} {number} active" if number else "Jobs"
    params = state.current().params(job=None)
    st.page_link(PAGES["Jobs"].path, label=label, icon=PAGES["Jobs"].icon, width="stretch", query_params=params)
    if st.session_state.pop(_WITH_PAGE, False):
        return  # the page calls `announce` when it is drawn
    if ended and page in _REFRESHED:
        st.rerun()
    announce()


def _ended(workspace: Workspace, active: set[str]) -> list[Job]:
    """The jobs that this session has seen active and that are not any more."""
    gone = st.session_state.get(_ACTIVE, set()) - active
    st.session_state[_ACTIVE] = active
    found = []
    for job_id in gone:
        try:
            job = jobs.get_job(workspace, job_id)
        except CtrlabError:  # it was deleted
            continue
        if job.active:
            follow(job_id)  # submitted between the two readings
        else:
            found.append(job)
    return found


def _report(workspace: Workspace, job: Job) -> str:
    """A line for a toast: what ended, and its result or its fault."""
    line = f"**{escape(job.title)}**: {_WORDS[job.state].lower()}"
    if job.state == "failed" and job.error and job.error_expected:
        return f"{line}. {sentence(job.error)}"
    model = job.result.get("model")
    evaluation = newest_of_model(workspace, "evaluation", model) if isinstance(model, str) else None
    if job.state == "succeeded" and evaluation is not None:
        return f"{line}, {format.accuracy(evaluation.summary)} on {evaluation.summary['split']} rows"
    return f"{line}."
