"""The Spectra page: what could be saved, every layer direction by direction, and the curves of one layer."""

import streamlit as st

from ctrlab.services import previews, sensitivity
from ctrlab.services import spectra as service
from ctrlab.services.outside import abilities
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.ui import cache, state
from ctrlab.ui.components.layers import layer_table
from ctrlab.ui.components.model_chooser import model_chooser
from ctrlab.ui.components.task import task
from ctrlab.ui.feedback import escape
from ctrlab.ui.views.spectra.answer import answer
from ctrlab.ui.views.spectra.layer_map import layer_map
from ctrlab.ui.views.spectra.one_layer import one_layer
from ctrlab.ui.views.spectra.selected_layer import selected_layer
from ctrlab.ui.views.spectra.table import layers_as_table


def render() -> None:
    """The page."""
    workspace, selection = cache.workspace(), state.current()
    if selection.model is None:
        model_chooser("Spectra are computed from a trained model.")
        return
    model = workspace.store.artifacts.get(selection.model)
    spectra = _selected_spectra(workspace, selection)
    if spectra is None:
        _compute(workspace, model)
        return
    if not cache.model_profile(workspace, model.id).compressed:
        sensitivity.measure_once(workspace, sensitivity.SensitivityConfig(model_id=model.id, spectra_id=spectra.id))
        previews.prepare(workspace, model.id, spectra.id)  # the next page measures plans
    answer(workspace, model.id, spectra)
    _explorer(model.id, model.name, spectra.id)


def _selected_spectra(workspace: Workspace, selection: state.Selection) -> Artifact | None:
    if selection.spectra is not None:
        return workspace.store.artifacts.get(selection.spectra)
    found = service.latest_spectra(workspace, selection.model or "")
    if found is not None:
        state.select(spectra=found.id)
    return found


def _compute(workspace: Workspace, model: Artifact) -> None:
    """The button that computes the spectra, then the progress of its job."""
    if reason := abilities(workspace, model).why_not("spectra"):
        st.info(f"{escape(model.name)} has no spectra. {reason}", icon=":material/info:")
        return
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
    table, spectra = layer_table(workspace, model_id, spectra_id), cache.layer_spectra(workspace, spectra_id)
    layer = selected_layer(table)
    layer_map(table, spectra, layer, model_name)
    measured = sensitivity.latest_sensitivity(workspace, model_id)
    one_layer(table, layer, model_id, model_name, spectra_id, measured)
    layers_as_table(table, layer, model_name, spectra_id, measured)
