"""The button that measures a model's sensitivity, and the result as a table."""

import math
from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.services import sensitivity as service
from ctrlab.services.outside import abilities
from ctrlab.services.workspace import Workspace
from ctrlab.ui import cache
from ctrlab.ui.components.task import task

if TYPE_CHECKING:
    import pandas as pd


def measure_sensitivity(model_id: str, spectra_id: str) -> None:
    """An explanation, the button that measures the sensitivity, then the progress of its job; the reason where it cannot be."""
    workspace = cache.workspace()
    reason = abilities(workspace, workspace.store.artifacts.get(model_id)).why_not("sensitivity")
    if reason:
        st.info(f"No AUC by rank. {reason}", icon=":material/info:")
        return
    config = service.SensitivityConfig(model_id=model_id, spectra_id=spectra_id)
    with st.container(border=True, key="measure-sensitivity"):
        st.markdown(
            "**Variance is not importance.** Sensitivity is the AUC that each layer loses at each rank: one layer at a time is "
            "truncated and the validation rows are scored again. Plans for a budget need it."
        )
        task(
            "sensitivity",
            "Measure sensitivity",
            lambda: service.submit_sensitivity(cache.workspace(), config),
            belongs=lambda job: job.config.get("model_id") == model_id,
        )


def importance_table(workspace: Workspace, spectra_id: str, sensitivity_id: str, layers: "pd.DataFrame") -> "pd.DataFrame":
    """One row a measured layer at an eighth of its width, as in the paper: layer, kind, rank, variance_lost, auc_loss."""
    import pandas as pd

    spectra, measured = cache.layer_spectra(workspace, spectra_id), cache.sensitivity(workspace, sensitivity_id)
    rows = []
    for layer, kind, width in zip(layers["layer"], layers["kind"], layers["width"], strict=True):
        if layer in measured.layers:
            rank = math.ceil(width / 8)
            found = {"variance_lost": spectra[layer].variance_lost(rank), "auc_loss": measured.layers[layer].auc_loss(rank)}
            rows.append({"layer": layer, "kind": kind, "rank": rank, **found})
    return pd.DataFrame(rows, columns=["layer", "kind", "rank", "variance_lost", "auc_loss"])
