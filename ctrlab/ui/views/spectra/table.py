"""The numbers of all layers, beside their variance against AUC once that is measured."""

from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.storage import Artifact
from ctrlab.ui import cache
from ctrlab.ui.components.downloads import download_table, file_stem
from ctrlab.ui.components.figure import figure
from ctrlab.ui.components.sensitivity import importance_table
from ctrlab.ui.views.spectra.selected_layer import select_from_chart, select_from_table

if TYPE_CHECKING:
    import pandas as pd

#: Height in pixels of a table with more rows than fit beside a chart.
_HEIGHT, _MAX_ROWS = 360, 9


def layers_as_table(table: "pd.DataFrame", layer: str, model_name: str, spectra_id: str, sensitivity: Artifact | None) -> None:
    """The table, and right of it the chart of variance against AUC; a click in either selects a layer."""
    if sensitivity is None:
        _table(table, layer, model_name)
        return
    left, right = st.columns(2, gap="large")
    with left:
        key = f"importance-{spectra_id}"
        importance = importance_table(cache.workspace(), spectra_id, sensitivity.id, table)
        figure(
            "variance_against_accuracy", importance, selected=layer, key=key, file=file_stem(model_name, "variance-and-auc"),
            on_select=lambda: select_from_chart(key), selection_mode="points",
        )  # fmt: skip
    with right:
        _table(table, layer, model_name)


def _table(table: "pd.DataFrame", layer: str, model_name: str) -> None:
    shown = table[["layer", "shape", "k90", "k95", "k99", "effective_rank", "break_even", "head"]]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="layers-head"):
        st.markdown("**All layers as a table**")
        download_table(table.drop(columns="head"), model_name, "spectra")
    key = f"layers-{layer}"  # one key per layer, so that the selected row is the layer shown above
    st.dataframe(
        shown,
        key=key,
        hide_index=True,
        on_select=lambda: select_from_table(key, shown["layer"].tolist()),
        selection_mode="single-row",
        selection_default={"selection": {"rows": [shown["layer"].tolist().index(layer)], "columns": [], "cells": []}},
        height="content" if len(shown) <= _MAX_ROWS else _HEIGHT,
        alt="Every layer with its shape, ranks for 90, 95 and 99 % of the variance, effective rank and break-even rank",
        column_config={
            "layer": st.column_config.TextColumn("Layer", pinned=True),
            "shape": st.column_config.TextColumn("Shape", help="Inputs by outputs; for a table, ids by width."),
            "k90": st.column_config.NumberColumn("90 %", help="Directions that hold 90 % of the output variance.", width=52),
            "k95": st.column_config.NumberColumn("95 %", width=52),
            "k99": st.column_config.NumberColumn("99 %", width=52),
            "effective_rank": st.column_config.NumberColumn(
                "Effective", format="%.1f", help="exp of the entropy of the variance shares: the effective number of directions."
            ),
            "break_even": st.column_config.NumberColumn(
                "Break-even", format="%.0f", help="At or above this rank the layer stays dense."
            ),
            "head": st.column_config.BarChartColumn(
                "Singular values", y_min=0, y_max=1, help="The first 24, divided by the first."
            ),
        },
    )
