""" "What is this?": two sentences of theory in place, and a link to the whole of it."""

import streamlit as st

from ctrlab.ui import state
from ctrlab.ui.navigation import PAGES
from ctrlab.ui.topics import TOPICS


def explain(topic: str, *, key: str | None = None, label: str = "What is this?") -> None:
    """A small popover about one of `TOPICS`, with a link to its page under Learn."""
    entry = TOPICS[topic]
    with st.popover(label, type="tertiary", icon=":material/help:", key=key or f"explain-{topic}"):
        st.markdown(f"**{entry.title}**")
        st.markdown(entry.short)
        st.page_link(
            PAGES["Learn"].path,
            label="Read more",
            icon=":material/school:",
            query_params=state.current().params(job=None) | {"topic": topic},
        )
