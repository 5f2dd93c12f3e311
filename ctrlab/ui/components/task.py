"""A page's primary action that runs in the background: its button, its live progress in the same place, and what came of it."""

from collections.abc import Callable

import streamlit as st

from ctrlab.services import jobs
from ctrlab.storage import Job
from ctrlab.ui import cache, state
from ctrlab.ui.components.job_progress import job_progress
from ctrlab.ui.feedback import guarded, sentence


def task(
    kind: str,
    label: str,
    submit: Callable[[], str],
    *,
    belongs: Callable[[Job], bool],
    disabled: str = "",
    done: Callable[[Job], None] | None = None,
    curves: bool = False,
    show_button: bool = True,
) -> None:
    """One button that queues a job of `kind`, and the job it belongs to.

    Args:
        kind: of the job.
        label: says what will happen.
        submit: queues it and returns the job's id.
        belongs: whether a job of this kind is about what the page shows, so that a reload or a second browser finds it.
        disabled: why it cannot run now; "" when it can.
        done: draws what a job that ended well has brought.
        curves: also draw the loss and AUC it reports.
        show_button: False where there is nothing to do any more but a job may still be shown.
    """
    job = _job(kind, belongs)
    active = job is not None and job.active
    clicked = show_button and st.button(
        label,
        key=f"run-{kind}",
        type="primary",
        disabled=bool(disabled) or active,
        help=sentence(disabled) if disabled else ("It is running." if active else None),
        width="stretch",
    )
    if disabled:
        st.caption(sentence(disabled))
    if clicked:
        with guarded() as outcome:
            state.hold(job=submit())
        if not outcome.failed:
            st.rerun()
    if job is None:
        return
    job_progress(job.id, curves=curves, quiet_success=done is not None)
    if job.state == "succeeded" and done is not None:
        done(job)


def _job(kind: str, belongs: Callable[[Job], bool]) -> Job | None:
    """The job in hand, if it is one of these; else the newest that is still active, whoever started it."""
    workspace = cache.workspace()
    in_hand = state.current().job
    if in_hand is not None:
        job = jobs.get_job(workspace, in_hand)
        if job.kind == kind and belongs(job):
            return job
    active = jobs.list_jobs(workspace, 20, states=("queued", "running"))
    return next((job for job in active if job.kind == kind and belongs(job)), None)
