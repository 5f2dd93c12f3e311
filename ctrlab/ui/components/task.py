"""A page's primary action that runs as a job: its button, its live progress below it, and its result."""

from collections.abc import Callable

import streamlit as st

from ctrlab.storage import Job
from ctrlab.ui.components.job_progress import job_of_page, job_progress, watch
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
    """A button that queues a job of `kind`, with the progress and the result of that job.

    Args:
        kind: kind of the job.
        label: label of the button.
        submit: queues the job and returns its id.
        belongs: whether a job of this kind concerns what the page shows, so that a reload or a second browser finds it.
        disabled: why the button is disabled; "" when it is enabled.
        done: draws the result of a job that succeeded.
        curves: also draw the loss and AUC that the job reports.
        show_button: False where nothing is left to run but a job may still be shown.
    """
    job = job_of_page((kind,), belongs)
    active = job is not None and job.active
    clicked = show_button and st.button(
        label,
        key=f"run-{kind}",
        type="primary",
        disabled=bool(disabled) or active,
        help=sentence(disabled) if disabled else ("The job is running." if active else None),
        width="stretch",
    )
    if disabled:
        st.caption(sentence(disabled))
    if clicked:
        with guarded() as outcome:
            watch(submit())
        if not outcome.failed:
            st.rerun()
    if job is None:
        return
    job_progress(job.id, curves=curves, quiet_success=done is not None)
    if job.state == "succeeded" and done is not None:
        done(job)
