"""The Learn page: one topic at a time, some with an interactive demo."""

import streamlit as st

from ctrlab.ui.topics import TOPICS
from ctrlab.ui.views.learn_demos import DEMOS

_FIRST = next(iter(TOPICS))


def render() -> None:
    """The page; `?topic=` in the address names the topic."""
    topic = _choose()
    demo = DEMOS.get(topic)
    if demo is None:
        with st.container(width=760):
            _text(topic)
        return
    text, right = st.columns([6, 5], gap="large")
    with text:
        _text(topic)
    with right, st.container(border=True, key="demo"):
        st.fragment(demo)()


def _choose() -> str:
    linked = st.query_params.get("topic")
    st.session_state["learn-topic"] = linked if linked in TOPICS else _FIRST
    st.pills(
        "Topic",
        list(TOPICS),
        key="learn-topic",
        required=True,
        format_func=lambda name: TOPICS[name].title,
        on_change=_to_address,
        label_visibility="collapsed",
    )
    return str(st.session_state["learn-topic"])


def _to_address() -> None:
    st.query_params["topic"] = st.session_state["learn-topic"]


def _text(topic: str) -> None:
    st.subheader(TOPICS[topic].title, anchor=False)
    st.markdown(TOPICS[topic].body)
