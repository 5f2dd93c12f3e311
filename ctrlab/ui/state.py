"""What is in hand: the ids of a dataset, a model, its spectra and a job, kept in the URL and in the session.

The URL is the truth of a page load, so a refresh, a bookmark or a second browser shows the same things; the session
remembers them where a link without ids was followed. Only ids are kept: everything else is read from the store.
"""

from dataclasses import dataclass

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.services.workspace import Workspace

#: The query parameters, in the order in which they appear in links.
KEYS = ("dataset", "model", "spectra", "job")
_SESSION_KEY = "in_hand"
_PAGE_KEY = "page_shown"


@dataclass(frozen=True)
class InHand:
    """Ids of what every page works on; None where nothing is chosen yet."""

    dataset: str | None = None
    model: str | None = None
    spectra: str | None = None
    job: str | None = None

    def params(self, **changes: str | None) -> dict[str, str]:
        """Query parameters of a link that keeps these ids, with `changes` applied (None drops one)."""
        ids = {key: getattr(self, key) for key in KEYS} | changes
        return {key: value for key, value in ids.items() if value}


def current() -> InHand:
    """What is in hand in this session."""
    return InHand(**st.session_state.get(_SESSION_KEY, {}))


def hold(**ids: str | None) -> InHand:
    """Take things in hand: `hold(model="md-1")`. Taking another dataset or model drops what belonged to the old one.

    Works in callbacks and in the script; the URL follows at once.
    """
    unknown = set(ids) - set(KEYS)
    if unknown:
        raise ValueError(f"only {', '.join(KEYS)} can be in hand, got {', '.join(sorted(unknown))}")
    before = current()
    kept = {key: getattr(before, key) for key in KEYS}
    if ids.get("dataset", before.dataset) != before.dataset:
        kept |= {"model": None, "spectra": None}
    if ids.get("model", before.model) != before.model:
        kept |= {"spectra": None}
    return _write(InHand(**(kept | ids)))


def sync(workspace: Workspace, page: str = "") -> list[str]:
    """Reconcile URL, session and store at the start of a page run.

    Fills in what follows from what is given (a model's dataset, a spectrum's model) and drops ids that no longer exist.

    Args:
        page: the page that runs.

    Returns:
        One sentence for each id that had to be dropped.
    """
    remembered = st.session_state.get(_SESSION_KEY, {})
    given = {key: st.query_params[key] for key in KEYS if st.query_params.get(key)}
    for key, below in (("dataset", "model"), ("model", "spectra")):  # a link to another dataset or model leaves the old one's
        if key in given and below not in given and given[key] != remembered.get(key):
            remembered = {"job": remembered.get("job")}
    ids, dropped = _existing(workspace, {**remembered, **given})
    # A link from a page to itself reaches the script, but the browser's address bar only follows when it is told to.
    followed_to_itself = st.session_state.get(_PAGE_KEY) == page and any(remembered.get(key) != given[key] for key in given)
    st.session_state[_PAGE_KEY] = page
    _write(InHand(**_with_parents(workspace, ids)), tell_browser=followed_to_itself)
    return dropped


def _write(in_hand: InHand, *, tell_browser: bool = False) -> InHand:
    st.session_state[_SESSION_KEY] = {key: getattr(in_hand, key) for key in KEYS}
    for key in KEYS:
        value = getattr(in_hand, key)
        if value and (tell_browser or st.query_params.get(key) != value):
            st.query_params[key] = value
        elif not value and key in st.query_params:
            del st.query_params[key]
    return in_hand


def _existing(workspace: Workspace, ids: dict[str, str | None]) -> tuple[dict[str, str], list[str]]:
    kept, dropped = {}, []
    for key in KEYS:
        value = ids.get(key)
        if not value:
            continue
        try:
            found = workspace.store.jobs.get(value) if key == "job" else workspace.store.artifacts.get(value)
        except CtrlabError:
            dropped.append(f"There is no {key} with the id {value} here any more; choose another.")
            continue
        if key == "job" or found.kind == key:
            kept[key] = value
        else:
            dropped.append(f"{value} is a {found.kind}, not a {key}; choose a {key}.")
    return kept, dropped


def _with_parents(workspace: Workspace, ids: dict[str, str]) -> dict[str, str]:
    """Complete the chain spectra -> model -> dataset from the lineage, which outranks what was remembered."""
    for child in ("spectra", "model"):
        if child in ids:
            ancestors = [a for a in workspace.store.artifacts.lineage(ids[child]) if a.id != ids[child]]
            for kind in ("model", "dataset"):
                of_kind = [a.id for a in ancestors if a.kind == kind]
                if of_kind and kind != child and ids.get(kind) not in of_kind:
                    ids[kind] = of_kind[0]
    return ids
