"""The selected layer of the Spectra page, kept in the address."""

from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    import pandas as pd

_LAYER = "layer"


def selected_layer(table: "pd.DataFrame") -> str:
    """The layer in the URL if the table has it; else the one that needs the smallest share of its directions."""
    layers = table["layer"].tolist()
    wanted = st.query_params.get(_LAYER) or st.session_state.get(_LAYER)
    layer = str(wanted if wanted in layers else layers[_strongest(table)])
    select_layer(layer)
    return layer


def select_layer(layer: str) -> None:
    """Select a layer; works in callbacks and in the script."""
    st.session_state[_LAYER] = layer
    if st.query_params.get(_LAYER) != layer:
        st.query_params[_LAYER] = layer


def select_from_chart(key: str) -> None:
    """Select the layer of the point that was clicked in the chart `key`: its customdata."""
    points = st.session_state[key].selection.points
    if points and points[0].get("customdata"):
        picked = points[0]["customdata"]
        select_layer(picked if isinstance(picked, str) else picked[0])


def select_from_table(key: str, layers: list[str]) -> None:
    """Select the layer of the row that was clicked in the table `key`."""
    rows = st.session_state[key].selection.rows
    if rows:
        select_layer(layers[rows[0]])


def _strongest(table: "pd.DataFrame") -> int:
    """Position of the linear layer with the smallest share of directions for 99 % of the variance, but more than one of them.

    The last of equals: low rank is clearer in later layers.
    """
    several = table[(table["kind"] == "linear") & (table["k99"] > 1)]
    shown = several if len(several) else table
    return int(table.index.get_loc((shown["k99"] / shown["width"])[::-1].idxmin()))
