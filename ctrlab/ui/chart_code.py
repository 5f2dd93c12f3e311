"""Loads the browser's code for charts (4.7 MB) before the first chart, while a job runs."""

from functools import cache
from pathlib import Path

import streamlit as st


def load_chart_code() -> None:
    """Have the browser import Streamlit's chart module now; it is the one that the first chart asks for."""
    if (name := _module()) is not None:
        st.html(f'<script>import("./static/js/{name}").catch(() => {{}});</script>', unsafe_allow_javascript=True)


@cache
def _module() -> str | None:
    """File name of the module, which has a hash in it; None where this Streamlit has none of that name."""
    found = sorted((Path(st.__file__).parent / "static" / "static" / "js").glob("PlotlyChart.*.js"))
    return found[0].name if found else None
