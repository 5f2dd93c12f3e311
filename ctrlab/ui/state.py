"""The selection: ids of a dataset, a model, its spectra and a job, kept in the URL and in the session.

Ids in the URL win at a page load, so a refresh, a bookmark or a second browser shows the same artifacts; the session keeps
them for links without ids. Only ids are kept: everything else is read from the store.
"""

from dataclasses import dataclass

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.services.workspace import Workspace

#: The query parameters, in the order in which they appear in links.
KEYS = ("dataset", "model", "spectra", "job")
_SESSION_KEY = "selection"
_PAGE_KEY = "page_shown"


@dataclass(frozen=True)
class Selection:
    """Ids of the artifacts that every page shows; None where nothing is selected."""

    dataset: str | None = None
    model: str | None = None
    spectra: str | None = None
    job: str | None = None

    def params(self, **changes: str | None) -> dict[str, str]:
        """Query parameters of a link that keeps these ids, with `changes` applied (None drops one)."""
        ids = {key: getattr(self, key) for key in KEYS} | changes
        return {key: value for key, value in ids.items() if value}


def current() -> Selection:
    """The selection of this session."""
    return Selection(**st.session_state.get(_SESSION_KEY, {}))


def select(**ids: str | None) -> Selection:
    """Select artifacts: `select(model="md-1")`. Another dataset or model deselects what was derived from the previous one.

    Works in callbacks and in the script; the URL is updated at once.
    """
    unknown = set(ids) - set(KEYS)
    if unknown:
        raise ValueError(f"only {', '.join(KEYS)} can be selected, got {', '.join(sorted(unknown))}")
    before = current()
    kept = {key: getattr(before, key) for key in KEYS}
    if ids.get("dataset", before.dataset) != before.dataset:
        kept |= {"model": None, "spectra": None}
    if ids.get("model", before.model) != before.model:
        kept |= {"spectra": None}
    return _write(Selection(**(kept | ids)))


def enters(page: str) -> bool:
    """Whether the session shows this page first, or after another one; call it before `sync`."""
    return bool(st.session_state.get(_PAGE_KEY) != page)


def page_changes(page: str) -> bool:
    """Whether the session showed another page before; call it before `sync`."""
    return _PAGE_KEY in st.session_state and enters(page)


def sync(workspace: Workspace, page: str = "") -> list[str]:
    """Reconcile URL, session and store at the start of a page run.

    Adds the parents of the given ids (a model's dataset, a spectrum's model) and drops ids that no longer exist. A job is
    selected on one page only; one that succeeded before this session began is shown by the Jobs page alone.

    Args:
        page: name of the page that runs.

    Returns:
        One sentence for each id that had to be dropped.
    """
    remembered = st.session_state.get(_SESSION_KEY, {})
    fresh = not remembered
    if page_changes(page):
        remembered = remembered | {"job": None}
    given = {key: st.query_params[key] for key in KEYS if st.query_params.get(key)}
    for key, below in (
        ("dataset", "model"),
        ("model", "spectra"),
    ):  # a link to another dataset or model deselects the previous one's
        if key in given and below not in given and given[key] != remembered.get(key):
            remembered = {"job": remembered.get("job")}
    ids, dropped = _existing(workspace, {**remembered, **given})
    if fresh and page != "Jobs" and _is_done(workspace, ids.get("job")):
        del ids["job"]
    # A link from a page to itself reaches the script, but the address bar changes only when query_params is written.
    same_page_link = st.session_state.get(_PAGE_KEY) == page and any(remembered.get(key) != given[key] for key in given)
    st.session_state[_PAGE_KEY] = page
    _write(Selection(**_with_parents(workspace, ids)), write_all=same_page_link)
    return dropped


def _is_done(workspace: Workspace, job_id: str | None) -> bool:
    return job_id is not None and workspace.store.jobs.get(job_id).state == "succeeded"


def _write(selection: Selection, *, write_all: bool = False) -> Selection:
    st.session_state[_SESSION_KEY] = {key: getattr(selection, key) for key in KEYS}
    for key in KEYS:
        value = getattr(selection, key)
        if value and (write_all or st.query_params.get(key) != value):
            st.query_params[key] = value
        elif not value and key in st.query_params:
            del st.query_params[key]
    return selection


def _existing(workspace: Workspace, ids: dict[str, str | None]) -> tuple[dict[str, str], list[str]]:
    kept, dropped = {}, []
    for key in KEYS:
        value = ids.get(key)
        if not value:
            continue
        try:
            found = workspace.store.jobs.get(value) if key == "job" else workspace.store.artifacts.get(value)
        except CtrlabError:
            dropped.append(f"The {key} {value} does not exist any more; choose another.")
            continue
        if key == "job" or found.kind == key:
            kept[key] = value
        else:
            dropped.append(f"{value} is a {found.kind}, not a {key}; choose a {key}.")
    return kept, dropped


def _with_parents(workspace: Workspace, ids: dict[str, str]) -> dict[str, str]:
    """Complete the chain spectra -> model -> dataset from the lineage, which overrides the remembered ids."""
    for child in ("spectra", "model"):
        if child in ids:
            ancestors = [a for a in workspace.store.artifacts.lineage(ids[child]) if a.id != ids[child]]
            for kind in ("model", "dataset"):
                of_kind = [a.id for a in ancestors if a.kind == kind]
                if of_kind and kind != child and ids.get(kind) not in of_kind:
                    ids[kind] = of_kind[0]
                if not of_kind and kind == "dataset":  # a model from outside has none
                    ids.pop("dataset", None)
    return ids
