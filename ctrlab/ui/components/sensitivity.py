"""Measuring a model's sensitivity from a page, and what came of it as a table."""

import math
from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.services import sensitivity as service
from ctrlab.ui import cache
from ctrlab.ui.components.task import task

if TYPE_CHECKING:
    import pandas as pd


def measure_sensitivity(model_id: str, spectra_id: str) -> None:
    """The button that measures it, with what that is, and then its progress."""
    config = service.SensitivityConfig(model_id=model_id, spectra_id=spectra_id)
    with st.container(border=True, key="measure-sensitivity"):
        st.markdown(
            "**Variance is not importance.** Measure what each layer costs in AUC at each rank: it is truncated by itself, and "
            "the validation rows run through the model. Plans for a budget are made from it."
        )
        task(
            "sensitivity",
            "Measure sensitivity",
            lambda: service.submit_sensitivity(cache.workspace(), config),
            belongs=lambda job: job.config.get("model_id") == model_id,
        )


def importance_table(spectra_id: str, sensitivity_id: str, layers: "pd.DataFrame") -> "pd.DataFrame":
    """Every measured layer at an eighth of its width, as the paper's tables: layer, kind, rank, variance_lost, auc_loss."""
    import pandas as pd

    spectra, measured = cache.layer_spectra(spectra_id), cache.sensitivity(sensitivity_id)
    rows = []
    for layer, kind, width in zip(layers["layer"], layers["kind"], layers["width"], strict=True):
        if layer in measured.layers:
            rank = math.ceil(width / 8)
            found = {"variance_lost": spectra[layer].variance_lost(rank), "auc_loss": measured.layers[layer].auc_loss(rank)}
            rows.append({"layer": layer, "kind": kind, "rank": rank, **found})
    return pd.DataFrame(rows, columns=["layer", "kind", "rank", "variance_lost", "auc_loss"])
