"""The Spectra page: how many directions the output of each layer uses."""

from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.services import sensitivity
from ctrlab.services import spectra as service
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.ui import cache, state
from ctrlab.ui.components.downloads import download_table, file_name
from ctrlab.ui.components.figure import figure
from ctrlab.ui.components.layers import layer_table
from ctrlab.ui.components.sensitivity import importance_table, measure_sensitivity
from ctrlab.ui.components.task import task
from ctrlab.ui.feedback import empty, escape
from ctrlab.ui.navigation import PAGES

if TYPE_CHECKING:
    import pandas as pd

_LAYER = "layer"
_KIND_NAMES = {"linear": "linear layer", "embedding": "embedding table"}


def render() -> None:
    """The page."""
    workspace, selection = cache.workspace(), state.current()
    if selection.model is None:
        empty(
            "No model selected",
            "Spectra are computed from a trained model: train one, or open the sample.",
            "Model",
            "Choose a model",
        )
        return
    model = workspace.store.artifacts.get(selection.model)
    spectra = _selected_spectra(workspace, selection)
    if spectra is None:
        _compute(workspace, model)
        return
    _explorer(model.id, model.name, spectra.id)
    _footer(spectra)


def _selected_spectra(workspace: Workspace, selection: state.Selection) -> Artifact | None:
    if selection.spectra is not None:
        return workspace.store.artifacts.get(selection.spectra)
    found = service.latest_spectra(workspace, selection.model or "")
    if found is not None:
        state.select(spectra=found.id)
    return found


def _compute(workspace: Workspace, model: Artifact) -> None:
    """The button that computes the spectra, then the progress of its job."""
    config = service.SpectraConfig(model_id=model.id)
    st.markdown(
        f"**{escape(model.name)}** has no spectra yet. One pass over the training rows measures the output of each linear layer; "
        "embedding tables need only the counts of their ids."
    )
    task(
        "spectra",
        "Compute spectra",
        lambda: service.submit_spectra(workspace, config),
        belongs=lambda job: job.config.get("model_id") == model.id,
    )


@st.fragment
def _explorer(model_id: str, model_name: str, spectra_id: str) -> None:
    """Everything that depends on the selected layer."""
    workspace = cache.workspace()
    table = layer_table(workspace, model_id, spectra_id)
    layer = _selected(table)
    row = table[table["layer"] == layer].iloc[0]
    _chooser(table, layer, row)
    spectrum = cache.layer_spectra(workspace, spectra_id)[layer]
    left, right = st.columns(2, gap="large")
    with left:
        figure("spectrum", spectrum, key="spectrum", file=_stem(model_name, layer, "singular-values"), topic="low-rank")
    with right:
        figure(
            "cumulative_variance", spectrum, break_even=float(row["break_even"]),
            key="cumulative", file=_stem(model_name, layer, "cumulative-variance"), topic="break-even",
        )  # fmt: skip
    _sensitivity(model_id, model_name, spectra_id, table, layer)
    left, right = st.columns([2, 1], gap="large")
    with left:
        _table(table, layer, model_name)
    with right:
        key = f"overview-{spectra_id}"
        figure(
            "rank_overview", table, selected=layer, key=key, file=_stem(model_name, "ranks"), topic="pca",
            on_select=lambda: _select_from_chart(key), selection_mode="points",
        )  # fmt: skip


def _sensitivity(model_id: str, model_name: str, spectra_id: str, table: "pd.DataFrame", layer: str) -> None:
    """AUC lost by the selected layer, and variance against AUC of all layers; or the button that measures them."""
    workspace = cache.workspace()
    found = sensitivity.latest_sensitivity(workspace, model_id)
    if found is None:
        measure_sensitivity(model_id, spectra_id)
        return
    measured = cache.sensitivity(workspace, found.id)
    if layer not in measured.layers:
        return
    spectrum = cache.layer_spectra(workspace, spectra_id)[layer]
    left, right = st.columns(2, gap="large")
    with left:
        figure(
            "sensitivity_curve", measured.layers[layer], spectrum,
            key="sensitivity", file=_stem(model_name, layer, "auc-lost"), topic="sensitivity",
        )  # fmt: skip
    with right:
        key = f"importance-{spectra_id}"
        figure(
            "variance_against_accuracy", importance_table(workspace, spectra_id, found.id, table), selected=layer, key=key,
            file=_stem(model_name, "variance-and-auc"), on_select=lambda: _select_from_chart(key), selection_mode="points",
        )  # fmt: skip


def _stem(*parts: str) -> str:
    return file_name(*parts, suffix="").rstrip(".")


def _selected(table: "pd.DataFrame") -> str:
    """The layer in the URL if the table has it; else the second linear layer, where low rank is clearest."""
    layers = table["layer"].tolist()
    wanted = st.query_params.get(_LAYER) or st.session_state.get(_LAYER)
    linear = table.loc[table["kind"] == "linear", "layer"].tolist()
    layer = str(wanted if wanted in layers else (linear[1:2] or linear or layers)[0])
    _select(layer)
    return layer


def _select(layer: str) -> None:
    st.session_state[_LAYER] = layer
    if st.query_params.get(_LAYER) != layer:
        st.query_params[_LAYER] = layer


def _chooser(table: "pd.DataFrame", layer: str, row: "pd.Series") -> None:
    """Buttons for the previous and the next layer around a select box."""
    layers = table["layer"].tolist()
    position = layers.index(layer)
    shapes = dict(zip(table["layer"], table["shape"], strict=True))
    with st.container(horizontal=True, vertical_alignment="bottom", key="layer-chooser"):
        st.button(
            "Previous layer", icon=":material/chevron_left:", key="previous-layer", disabled=position == 0,
            on_click=_select, args=(layers[max(position - 1, 0)],),
        )  # fmt: skip
        # One key per layer: a poll that was sent before the box changed reports its old value, which would be taken for a choice.
        key = f"layer-box-{layer}"
        st.selectbox(
            "Layer", layers, index=position, key=key, width=340, format_func=lambda name: f"{name}   ({shapes[name]})",
            on_change=lambda: _select(st.session_state[key]),
        )  # fmt: skip
        st.button(
            "Next layer", icon=":material/chevron_right:", key="next-layer", disabled=position == len(layers) - 1,
            on_click=_select, args=(layers[min(position + 1, len(layers) - 1)],),
        )  # fmt: skip
    with st.container(key="layer-facts"):  # a line of its own, so that its length moves nothing
        kind = _KIND_NAMES[row["kind"]].capitalize()
        st.markdown(
            f"{kind}, 90 / 95 / 99 % in **{row['k90']} / {row['k95']} / {row['k99']}** of {row['width']}, "
            f"effective rank **{row['effective_rank']:.1f}**"
        )


def _select_from_chart(key: str) -> None:
    points = st.session_state[key].selection.points
    if points and points[0].get("customdata"):
        picked = points[0]["customdata"]
        _select(picked if isinstance(picked, str) else picked[0])


def _table(table: "pd.DataFrame", layer: str, model_name: str) -> None:
    shown = table[["layer", "shape", "k90", "k95", "k99", "effective_rank", "break_even", "head"]]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="head-layers"):
        st.markdown("**All layers**")
        download_table(table.drop(columns="head"), model_name, "spectra")
    key = f"layers-{layer}"  # one key per layer, so that the selected row is the layer shown above
    st.dataframe(
        shown,
        key=key,
        hide_index=True,
        on_select=lambda: _select_from_table(key, shown["layer"].tolist()),
        selection_mode="single-row",
        selection_default={"selection": {"rows": [shown["layer"].tolist().index(layer)], "columns": [], "cells": []}},
        height="content" if len(shown) <= 16 else 640,
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


def _select_from_table(key: str, layers: list[str]) -> None:
    rows = st.session_state[key].selection.rows
    if rows:
        _select(layers[rows[0]])


def _footer(spectra: Artifact) -> None:
    rows, split = spectra.summary.get("calibration_rows"), spectra.summary.get("split", "train")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="spectra-footer"):
        st.caption(f"Computed over {rows:,} rows of the {split} split." if rows else f"Computed over the {split} split.")
        st.page_link(
            PAGES["Compress"].path,
            label="Choose ranks",
            icon=":material/arrow_forward:",
            query_params=state.current().params(job=None),
        )
