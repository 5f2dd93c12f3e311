""" "What is this?": a popover with a short explanation and a link to the topic on the Learn page."""

import streamlit as st

from ctrlab.ui import state
from ctrlab.ui.navigation import PAGES
from ctrlab.ui.topics import TOPICS


def explain(topic: str, *, key: str | None = None, label: str = "What is this?") -> None:
    """A popover about one of `TOPICS`."""
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
