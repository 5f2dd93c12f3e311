"""The curves of the selected layer: spectrum, variance, log loss and AUC by rank."""

from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.storage import Artifact
from ctrlab.ui import cache
from ctrlab.ui.components.downloads import file_stem
from ctrlab.ui.components.figure import figure
from ctrlab.ui.components.sensitivity import measure_sensitivity
from ctrlab.ui.views.spectra.selected_layer import select_layer

if TYPE_CHECKING:
    import pandas as pd

_KIND_NAMES = {"linear": "Linear layer", "embedding": "Embedding table"}


def one_layer(
    table: "pd.DataFrame", layer: str, model_id: str, model_name: str, spectra_id: str, sensitivity: Artifact | None
) -> None:
    """The chooser and the curves of one layer; AUC and measured log loss once the sensitivity is there."""
    row = table[table["layer"] == layer].iloc[0]
    _chooser(table, layer, row)
    _variance(layer, row, model_name, spectra_id)
    _loss(layer, model_id, model_name, spectra_id, sensitivity)


def _variance(layer: str, row: "pd.Series", model_name: str, spectra_id: str) -> None:
    spectrum = cache.layer_spectra(cache.workspace(), spectra_id)[layer]
    left, right = st.columns(2, gap="large")
    with left:
        figure("spectrum", spectrum, key="spectrum", file=file_stem(model_name, layer, "singular-values"), topic="low-rank")
    with right:
        figure(
            "cumulative_variance", spectrum, break_even=float(row["break_even"]),
            key="cumulative", file=file_stem(model_name, layer, "cumulative-variance"), topic="break-even",
        )  # fmt: skip


def _loss(layer: str, model_id: str, model_name: str, spectra_id: str, sensitivity: Artifact | None) -> None:
    """Log loss by rank, predicted and measured, beside the AUC; the progress of the measurement while it runs."""
    workspace = cache.workspace()
    spectrum = cache.layer_spectra(workspace, spectra_id)[layer]
    found = cache.sensitivity(workspace, sensitivity.id).layers.get(layer) if sensitivity is not None else None
    left, right = st.columns(2, gap="large")
    with left:
        if found is not None or spectrum.loss_eigenvalues is not None:
            figure(
                "log_loss_rise", spectrum, found,
                key="log-loss", file=file_stem(model_name, layer, "log-loss"), topic="sensitivity",
            )  # fmt: skip
    with right:
        if sensitivity is None:
            measure_sensitivity(model_id, spectra_id)
        elif found is not None:
            figure(
                "sensitivity_curve", found, spectrum,
                key="sensitivity", file=file_stem(model_name, layer, "auc-lost"), topic="sensitivity",
            )  # fmt: skip


def _chooser(table: "pd.DataFrame", layer: str, row: "pd.Series") -> None:
    """Buttons for the previous and the next layer around a select box."""
    layers = table["layer"].tolist()
    position = layers.index(layer)
    shapes = dict(zip(table["layer"], table["shape"], strict=True))
    with st.container(horizontal=True, vertical_alignment="bottom", key="layer-chooser"):
        st.button(
            "Previous layer", icon=":material/chevron_left:", key="previous-layer", disabled=position == 0,
            on_click=select_layer, args=(layers[max(position - 1, 0)],),
        )  # fmt: skip
        # One key per layer: a poll that was sent before the box changed reports its old value, which would be taken for a choice.
        key = f"layer-box-{layer}"
        st.selectbox(
            "Layer", layers, index=position, key=key, width=340, format_func=lambda name: f"{name}   ({shapes[name]})",
            on_change=lambda: select_layer(st.session_state[key]),
        )  # fmt: skip
        st.button(
            "Next layer", icon=":material/chevron_right:", key="next-layer", disabled=position == len(layers) - 1,
            on_click=select_layer, args=(layers[min(position + 1, len(layers) - 1)],),
        )  # fmt: skip
    with st.container(key="layer-facts"):  # a line of its own, so that its length moves nothing
        st.markdown(
            f"{_KIND_NAMES[row['kind']]}, 90 / 95 / 99 % in **{row['k90']} / {row['k95']} / {row['k99']}** of {row['width']}, "
            f"effective rank **{row['effective_rank']:.1f}**"
        )
