"""The frame around every page: page settings, sidebar, strip of selected artifacts, title, error boundary."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from ctrlab.services.models import role_of
from ctrlab.services.workspace import Workspace
from ctrlab.storage.records import Artifact
from ctrlab.ui import address, cache, live, state, warm_up
from ctrlab.ui.feedback import escape, guarded
from ctrlab.ui.navigation import PAGES, Page

_ASSETS = Path(__file__).parent / "assets"
_COPY_LINK = (_ASSETS / "copy_link.html").read_text()


@contextmanager
def frame(page: str) -> Iterator[None]:
    """Draw the frame of the page named `page`; the view goes inside the block.

        with frame("Data"):
            render()

    Title and lead are drawn here. An exception in the view is shown where the view would be.
    """
    shown = PAGES[page]
    if state.enters(page):
        live.leave_page()
        address.enter(page)
    st.set_page_config(
        page_title=live.tab_title(shown),
        page_icon=str(_ASSETS / "icon.png"),
        layout="wide",
    )
    st.html(_ASSETS / "style.css")
    with guarded() as outcome:
        workspace = cache.workspace()
        dropped = state.sync(workspace, page)
        _sidebar(shown)
        if page != "Learn":
            _strip(workspace)
        with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute", key="page-head"):
            _title(shown)
            st.html(_COPY_LINK, width="content", unsafe_allow_javascript=True)
        for note in dropped:
            st.warning(escape(note), icon=":material/link_off:")
    if outcome.failed:
        st.stop()
    try:
        with guarded():
            yield
        live.announce()
    finally:  # also where the view ended early; what starts now does not hold up the page
        with guarded():
            cache.keep_worker_alive(workspace)
        warm_up.start()


def _sidebar(shown: Page) -> None:
    selection = state.current()
    with st.sidebar:
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="brand"):
            st.image(str(_ASSETS / "icon.png"), width=26, alt="ctrlab logo")
            st.markdown("**ctrlab**")
        group = ""
        for page in PAGES.values():
            if page.group != group:
                group = page.group
                st.caption(group)
            if page.name == "Jobs":
                live.jobs_link(shown)
                continue
            st.page_link(page.path, label=page.name, icon=page.icon, width="stretch", query_params=selection.params(job=None))


def _strip(workspace: Workspace) -> None:
    """The selected dataset and model and the newest compressed model, each a link to its page."""
    selection = state.current()
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="selected"):
        for label, page, artifact in _selected_artifacts(workspace, selection):
            name = f"**{escape(artifact.name)}**" if artifact else ":gray[none yet]"
            st.page_link(
                PAGES[page].path,
                label=f":gray[{label}] {name}",
                query_params=selection.params(job=None),
            )


def _selected_artifacts(workspace: Workspace, selection: state.Selection) -> list[tuple[str, str, Artifact | None]]:
    artifacts = workspace.store.artifacts
    dataset = artifacts.get(selection.dataset) if selection.dataset else None
    model = artifacts.get(selection.model) if selection.model else None
    children = artifacts.list(kind="model", parent=model.id) if model else []
    compressed = [child for child in children if role_of(child) == "compressed" and not child.config.get("is_control")]
    return [("Dataset", "Data", dataset), ("Model", "Model", model), ("Compressed", "Compare", next(iter(compressed), None))]


def _title(shown: Page) -> None:
    with st.container(gap="small", width="stretch"):
        st.title(shown.title, anchor=False)
        if shown.lead:
            st.caption(shown.lead)
