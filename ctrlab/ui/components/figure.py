"""A figure of the registry on a page: title, chart, and its description as caption."""

from typing import Any

import streamlit as st

from ctrlab.figures.gallery import FIGURES
from ctrlab.ui.components.charts import chart
from ctrlab.ui.components.explain import explain


def figure(name: str, *args: Any, key: str, file: str, topic: str | None = None, title: str | None = None, **options: Any) -> Any:
    """Draw `FIGURES[name]` with `args` and `options`, which its description gets too.

    Args:
        name: of the figure.
        key: of the element; constant while only the data changes, so that the chart is updated in place.
        file: name of the PNG, without extension.
        topic: key of `topics.TOPICS` explained beside the title.
        title: overrides the title of the figure; "" for none.
        options: `on_select` and `selection_mode` go to `st.plotly_chart`, all others to the figure.

    Returns:
        What `st.plotly_chart` returns: the selection where `on_select` is given.
    """
    entry = FIGURES[name]
    clicks = {option: options.pop(option) for option in ("on_select", "selection_mode") if option in options}
    heading = entry.title if title is None else title
    if heading:
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key=f"{key}-head"):
            st.markdown(f"**{heading}**", width="content")
            if topic:
                explain(topic, key=f"{key}-explain")
    return chart(entry.draw(*args, **options), key, sentence=entry.describe(*args, **options), name=file, **clicks)
