"""A figure of the registry on a page: its title, the chart, and under it the sentence of its own description."""

from typing import Any

import streamlit as st

from ctrlab.figures.gallery import FIGURES
from ctrlab.ui.components.charts import chart
from ctrlab.ui.components.explain import explain


def figure(
    name: str, *args: Any, key: str, file: str, topic: str | None = None, title: str | None = None, **options: Any
) -> None:
    """Draw `FIGURES[name]`; `args` and the options that are not `st.plotly_chart`'s go to the figure and to its description.

    Args:
        name: of the figure.
        key: of the element; the same while the same chart gets new numbers, so that nothing jumps.
        file: name of the PNG, without extension.
        topic: what "What is this?" beside the title explains.
        title: instead of the figure's own; "" for none.
        options: `on_select` and `selection_mode` for clicks on points; all others are the figure's.
    """
    entry = FIGURES[name]
    clicks = {option: options.pop(option) for option in ("on_select", "selection_mode") if option in options}
    heading = entry.title if title is None else title
    if heading:
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key=f"{key}-head"):
            st.markdown(f"**{heading}**", width="content")
            if topic:
                explain(topic, key=f"{key}-explain")
    chart(entry.draw(*args, **options), key, sentence=entry.describe(*args, **options), name=file, **clicks)
