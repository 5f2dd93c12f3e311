"""The main chart of the Spectra page with its filter, order and kinds, for a few layers or for hundreds."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.ui import address
from ctrlab.ui.components.downloads import file_stem
from ctrlab.ui.components.figure import figure
from ctrlab.ui.views.spectra.selected_layer import select_from_chart

if TYPE_CHECKING:
    import pandas as pd

_KINDS = {"all": "All", "linear": "Linear layers", "embedding": "Tables"}
_ORDERS: dict[str, tuple[str, "Callable[[pd.DataFrame], pd.DataFrame]"]] = {
    "model": ("As in the model", lambda table: table),
    "least": ("Least rank needed first", lambda table: table.iloc[(table["k95"] / table["width"]).argsort(kind="stable")]),
    "most": ("Most rank needed first", lambda table: table.iloc[(-table["k95"] / table["width"]).argsort(kind="stable")]),
    "large": ("Most parameters first", lambda table: table.sort_values("parameters", ascending=False, kind="stable")),
    "name": ("By name", lambda table: table.sort_values("layer", kind="stable")),
}
#: With more strips than this, the chart scrolls in a box of this height in pixels.
_MAX_STRIPS, _BOX_HEIGHT = 24, 620
#: With fewer layers there is nothing to filter.
_FEW = 6


def layer_map(table: "pd.DataFrame", spectra: Mapping[str, LayerSpectrum], selected: str, model_name: str) -> None:
    """Filter, order and kinds in one line, then the strips of the layers that are left; a click selects one."""
    shown = _chosen(table) if len(table) > _FEW else table
    if shown.empty:
        st.info("No layer fits the filter; clear it to see all.", icon=":material/filter_alt_off:")
        return
    with st.container(height=_BOX_HEIGHT if len(shown) > _MAX_STRIPS else "content", border=False, key="layer-map-box"):
        figure(
            "layer_map", shown, spectra, selected=selected, key="layer-map", file=file_stem(model_name, "layers"), topic="pca",
            on_select=lambda: select_from_chart("layer-map"), selection_mode="points",
        )  # fmt: skip


def _chosen(table: "pd.DataFrame") -> "pd.DataFrame":
    with st.container(horizontal=True, vertical_alignment="bottom", key="layer-map-controls"):
        text = st.text_input(
            "Filter by name", value=address.start("show"), key="layer-filter", placeholder="such as mlp or embedding.user",
            width=260, persist_state="session",
        )  # fmt: skip
        order = _choice("Order", "order", {key: words for key, (words, _) in _ORDERS.items()})
        kind = _choice("Layers", "kind", _KINDS) if table["kind"].nunique() > 1 else "all"
    address.write("show", text.strip())
    found = table if kind == "all" else table[table["kind"] == kind]
    found = found[found["layer"].str.contains(text.strip(), case=False, regex=False)]
    if len(found) < len(table):
        st.caption(f"{len(found):,} of {len(table):,} layers.")
    return _ORDERS[order][1](found)


def _choice(label: str, parameter: str, options: Mapping[str, str]) -> str:
    """A select box whose choice is in the address, but for the first option."""
    ids = list(options)
    start = address.start(parameter)
    chosen: str = st.selectbox(
        label, ids, index=ids.index(start) if start in ids else 0, key=f"layer-{parameter}", format_func=options.__getitem__,
        width=220, persist_state="session",
    )  # fmt: skip
    address.write(parameter, "" if chosen == ids[0] else chosen)
    return chosen
