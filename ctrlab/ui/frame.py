"""The frame around every page: page settings, sidebar, header, title, error boundary."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from ctrlab.ui import address, cache, live, state, warm_up
from ctrlab.ui.feedback import escape, guarded
from ctrlab.ui.header import header
from ctrlab.ui.navigation import PAGES, Page

_ASSETS = Path(__file__).parent / "assets"


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
        header(workspace)
        _title(shown)
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


def _title(shown: Page) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="page-head"):
        st.title(shown.title, anchor=False, width="content")
        if shown.lead:
            st.caption(shown.lead, width="content")
