"""The interactive comparison on a page: the script of `reports/assets` as a component of Streamlit."""

from typing import Any, NamedTuple

import streamlit as st

from ctrlab.reports.html_assets import comparison_script, comparison_style

#: Connects the script to the page: what is chosen and how it is looked at are reported, figures come in with each run.
_CONNECT = """
export default function ({ parentElement, data, setStateValue }) {
  if (parentElement.comparison) parentElement.comparison.update(data);
  else
    parentElement.comparison = new Comparison(parentElement.querySelector(".place"), data, {
      choose: (id) => setStateValue("chosen", id),
      view: (text) => setStateValue("view", text),
    });
}
"""
_component = st.components.v2.component(
    "ctrlab_comparison", html='<div class="place"></div>', css=comparison_style(), js=comparison_script() + _CONNECT
)


class Shown(NamedTuple):
    """What a reader has made of a comparison: id of the chosen model; order, filter and axes as text."""

    chosen: str
    view: str


def comparison(data: dict[str, Any], *, key: str, view: str = "") -> Shown:
    """Draw a `comparison_view`; what the reader chose, at first what `data` and `view` say.

    Args:
        key: of the element; constant for one set of models, so that order and filter stay while figures come in.
        view: order, filter and axes to start with, as the script wrote them.
    """
    start = {"chosen": data["chosen"], "view": view}
    ignore = lambda: None  # noqa: E731 - required for values with a default; the run itself reads them
    found = _component(key=key, data=data | {"view": view}, default=start, on_chosen_change=ignore, on_view_change=ignore)
    known = {row["id"] for row in data["rows"]}
    return Shown(found.chosen if found.chosen in known else data["chosen"], str(found.view or ""))
