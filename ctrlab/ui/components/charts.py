"""A plotly figure on a page, with its caption, an explanation and a file name for the PNG."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from ctrlab.figures.theme import on_dark
from ctrlab.ui.components.downloads import file_name
from ctrlab.ui.components.explain import explain
from ctrlab.ui.feedback import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

_UNUSED_BUTTONS = ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "pan2d", "zoom2d"]


def chart(
    figure: "go.Figure",
    key: str,
    *,
    sentence: str = "",
    name: str = "",
    topic: str | None = None,
    alt: str = "",
    **arguments: Any,
) -> Any:
    """Draw `figure` and the sentence that describes it.

    Args:
        key: of the element; keeps zoom and hidden traces across reruns.
        sentence: caption and alternative text of the chart.
        name: file name of the PNG, without extension; `key` when empty.
        topic: key of `topics.TOPICS` explained by "What is this?".
        arguments: passed to `st.plotly_chart`, e.g. `on_select`.

    Returns:
        What `st.plotly_chart` returns: the selection where `on_select` is given.
    """
    selection = st.plotly_chart(
        on_dark(figure.to_plotly_json()) if st.context.theme.type == "dark" else figure,
        key=key,
        alt=alt or sentence or None,
        config={
            "displaylogo": False,
            "modeBarButtonsToRemove": _UNUSED_BUTTONS,
            "toImageButtonOptions": {"filename": file_name(name or key, suffix="")[:-1], "format": "png", "scale": 2},
        },
        **arguments,
    )
    if sentence or topic:
        with st.container(horizontal=True, vertical_alignment="top", gap="small", key=f"{key}-foot"):
            if sentence:
                st.caption(escape(sentence), width="stretch")
            if topic:
                explain(topic, key=f"{key}-explain")
    return selection
