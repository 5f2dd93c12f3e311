"""The Data page: the dataset in hand, and three ways to another one."""

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
    if job is not None:
        job = job_progress(job.id, on_success=_take, quiet_success=True)
    busy = job is not None and job.active
    if not known:
        if not busy:
            empty("No dataset yet", "Open the sample with one click, or bring a table of your own below.")
        new_dataset(busy=busy)
        return
    dataset = _in_hand(known)
    if dataset is None:
        new_dataset(busy=busy)
        return
    with st.expander("Bring another dataset", icon=":material/add:", expanded="draft" in st.session_state):
        new_dataset(busy=busy)
    dataset_overview(dataset)


def _take(job: Job) -> None:
    """What was just made comes in hand, and the draft it was made from is done with."""
    st.session_state.pop("draft", None)
    ids = {kind: job.result[kind] for kind in ("dataset", "model", "spectra") if kind in job.result}
    state.hold(**ids, job=None)
    st.rerun()


def _in_hand(known: list[Artifact]) -> Artifact | None:
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        dataset = artifact_picker("dataset", known, label="Dataset in hand", describe=_describe)
    with right:
        if dataset is not None:
            st.page_link(
                PAGES["Model"].path, label="Train a model on it", icon=":material/arrow_forward:",
                query_params=state.current().params(job=None),
            )  # fmt: skip
    return dataset


def _describe(dataset: Artifact) -> str:
    rows = sum(dataset.summary["rows"].values())
    return f"{format.count(rows)} rows, {format.plural(len(dataset.summary['fields']), 'field')}"
