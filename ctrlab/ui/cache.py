"""What the dashboard keeps in memory: the workspace, and heavy reads by artifact id.

Artifacts never change once written, so their id is the whole key. Keys are never arrays or tables.
"""

import os
from typing import TYPE_CHECKING, Any

import streamlit as st

from ctrlab.services import jobs
from ctrlab.services.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from ctrlab.decomposition.spectrum import LayerSpectrum
    from ctrlab.models.profile import ModelProfile
    from ctrlab.plans.sensitivity import Sensitivity


def workspace() -> Workspace:
    """The workspace of this server: the home and store that the environment names."""
    return _open(os.environ.get("CTRLAB_HOME"), os.environ.get("CTRLAB_STORE_URL"))


def keep_worker_alive() -> None:
    """Start a worker where none lives; looks at most every five seconds."""
    _ensured(str(workspace().home))


def layer_spectra(spectra_id: str) -> "dict[str, LayerSpectrum]":
    """Every layer's spectrum, without eigenvectors. Shared between sessions: do not change it."""
    return _layer_spectra(str(workspace().home), spectra_id)


def sensitivity(sensitivity_id: str) -> "Sensitivity":
    """What each layer costs in accuracy at each rank. Shared between sessions: do not change it."""
    return _sensitivity(str(workspace().home), sensitivity_id)


def model_profile(model_id: str) -> "ModelProfile":
    """Layers, shapes and costs of a model. Shared between sessions: do not change it."""
    return _model_profile(str(workspace().home), model_id)


def dataset_summary(dataset_id: str) -> dict[str, Any]:
    """Row counts, CTR and per-field facts of an encoded dataset. Shared between sessions: do not change it."""
    return _dataset_summary(str(workspace().home), dataset_id)


@st.cache_resource(show_spinner=False, max_entries=4)
def _open(home: str | None, url: str | None) -> Workspace:
    return open_workspace(home, url)


@st.cache_resource(show_spinner=False, ttl=5, max_entries=4)
def _ensured(home: str) -> None:
    jobs.ensure_worker(workspace())


@st.cache_resource(show_spinner=False, max_entries=16)
def _layer_spectra(home: str, spectra_id: str) -> "dict[str, LayerSpectrum]":
    from ctrlab.services import spectra

    return spectra.load_layer_spectra(workspace(), spectra_id)


@st.cache_resource(show_spinner=False, max_entries=16)
def _sensitivity(home: str, sensitivity_id: str) -> "Sensitivity":
    from ctrlab.services import sensitivity

    return sensitivity.load_model_sensitivity(workspace(), sensitivity_id)


@st.cache_resource(show_spinner=False, max_entries=64)
def _model_profile(home: str, model_id: str) -> "ModelProfile":
    from ctrlab.services import models

    return models.model_profile(workspace(), model_id)


@st.cache_resource(show_spinner=False, max_entries=64)
def _dataset_summary(home: str, dataset_id: str) -> dict[str, Any]:
    from ctrlab.services import datasets

    return datasets.dataset_summary(workspace(), dataset_id)
