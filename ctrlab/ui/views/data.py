"""The Data page: the selected dataset, and the forms that add another one."""

import streamlit as st

from ctrlab.services import datasets
from ctrlab.storage import Artifact, Job
from ctrlab.ui import cache, format, state
from ctrlab.ui.components.artifact_picker import artifact_picker
from ctrlab.ui.components.dataset_summary import dataset_overview
from ctrlab.ui.components.job_progress import job_of_page, job_progress
from ctrlab.ui.feedback import empty
from ctrlab.ui.navigation import PAGES
from ctrlab.ui.views.data_sources import new_dataset

_KINDS = ("encode", "open_sample")


def render() -> None:
    """The page."""
    known = datasets.list_datasets(cache.workspace())
    job = job_of_page(_KINDS)
    dataset = _selected_dataset(known) if known else None
    if dataset is None:
        if not known and not (job and job.active):
            empty("No dataset yet", "Open the sample, or upload a table of your own below.")
        _add(job)
        return
    with st.expander("Add a dataset", icon=":material/add:", expanded=job is not None or "draft" in st.session_state):
        _add(job)
    dataset_overview(dataset)


def _add(job: Job | None) -> None:
    """The forms that add a dataset; the progress of the job is below the button that queued it."""
    new_dataset(busy=job is not None and job.active)
    if job is not None:
        job_progress(job.id, on_success=_select_result, quiet_success=True)


def _select_result(job: Job) -> None:
    """Select the artifacts of a finished job and drop the draft that they were made from."""
    st.session_state.pop("draft", None)
    ids = {kind: job.result[kind] for kind in ("dataset", "model", "spectra") if kind in job.result}
    state.select(**ids, job=None)
    st.rerun()


def _selected_dataset(known: list[Artifact]) -> Artifact | None:
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        dataset = artifact_picker("dataset", known, label="Selected dataset", describe=_describe)
    with right:
        if dataset is not None:
            st.page_link(
                PAGES["Model"].path, label="Train a model", icon=":material/arrow_forward:",
                query_params=state.current().params(job=None),
            )  # fmt: skip
    return dataset


def _describe(dataset: Artifact) -> str:
    rows = sum(dataset.summary["rows"].values())
    return f"{format.count(rows)} rows, {format.plural(len(dataset.summary['fields']), 'field')}"
