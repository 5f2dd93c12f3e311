"""What the dashboard's process keeps in memory: the workspace, and what is read from artifacts, by home and artifact id.

Artifacts never change once written, so the id is the whole key within a home. What is returned is shared between sessions: do not
change it.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import streamlit as st

from ctrlab.services import jobs
from ctrlab.services.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from ctrlab.decomposition.spectrum import LayerSpectrum
    from ctrlab.models.profile import ModelProfile
    from ctrlab.plans.headroom import Headroom
    from ctrlab.plans.sensitivity import Sensitivity

F = TypeVar("F", bound=Callable[..., Any])
_KEY: dict[str | type[Any], Callable[[Any], Any]] = {Workspace: lambda workspace: (str(workspace.home), workspace.url)}


def per_workspace(max_entries: int) -> Callable[[F], F]:
    """A decorator: `st.cache_resource` for a function of a workspace and ids; a workspace is keyed by its home and URL."""
    decorate: Callable[[F], F] = st.cache_resource(show_spinner=False, max_entries=max_entries, hash_funcs=_KEY)  # type: ignore[assignment]
    return decorate


def workspace() -> Workspace:
    """The workspace of this server: the home and store that the environment names."""
    return _open(os.environ.get("CTRLAB_HOME"), os.environ.get("CTRLAB_STORE_URL"))


@st.cache_resource(show_spinner=False, max_entries=4)
def _open(home: str | None, url: str | None) -> Workspace:
    return open_workspace(home, url)


@st.cache_resource(show_spinner=False, max_entries=4, ttl=5, hash_funcs=_KEY)
def keep_worker_alive(workspace: Workspace) -> None:
    """Start a worker where none is alive; checked at most every five seconds."""
    jobs.ensure_worker(workspace)


@per_workspace(max_entries=16)
def layer_spectra(workspace: Workspace, spectra_id: str) -> "dict[str, LayerSpectrum]":
    """{layer: spectrum} without eigenvectors."""
    from ctrlab.services import spectra

    return spectra.load_layer_spectra(workspace, spectra_id)


@per_workspace(max_entries=16)
def sensitivity(workspace: Workspace, sensitivity_id: str) -> "Sensitivity":
    """AUC and log loss with each layer truncated alone, by rank."""
    from ctrlab.services import sensitivity

    return sensitivity.load_model_sensitivity(workspace, sensitivity_id)


@per_workspace(max_entries=64)
def model_profile(workspace: Workspace, model_id: str) -> "ModelProfile":
    """Layers, shapes and costs of a model."""
    from ctrlab.services import models

    return models.model_profile(workspace, model_id)


@per_workspace(max_entries=64)
def headroom(workspace: Workspace, model_id: str, spectra_id: str) -> "Headroom | None":
    """How much smaller a model can plausibly be, by its spectra."""
    from ctrlab.plans import headroom

    return headroom.headroom(model_profile(workspace, model_id), layer_spectra(workspace, spectra_id))


@per_workspace(max_entries=64)
def dataset_summary(workspace: Workspace, dataset_id: str) -> dict[str, Any]:
    """Row counts, CTR and per-field statistics of an encoded dataset."""
    from ctrlab.services import datasets

    return datasets.dataset_summary(workspace, dataset_id)
