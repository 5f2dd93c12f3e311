"""The data of the Compress page: a model, its profile and its spectra."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import streamlit as st

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.profile import LayerProfile, ModelProfile
from ctrlab.storage import Artifact
from ctrlab.ui import cache


@dataclass(frozen=True)
class Bench:
    """A model with its profile and spectra. Shared between sessions: do not change it."""

    model: Artifact
    spectra_id: str
    profile: ModelProfile
    spectra: Mapping[str, LayerSpectrum]
    linear: tuple[LayerProfile, ...]
    tables: tuple[LayerProfile, ...]
    finetune_rows: int

    @cached_property
    def layers(self) -> tuple[LayerProfile, ...]:
        """Linear layers, then tables."""
        return self.linear + self.tables


@st.cache_resource(show_spinner=False, max_entries=16)
def load_bench(model_id: str, spectra_id: str) -> Bench:
    """The context of a model; one object for all sessions."""
    model = cache.workspace().store.artifacts.get(model_id)
    profile, found = cache.model_profile(model_id), cache.layer_spectra(spectra_id)
    layers = [layer for layer in profile.compressible if layer.layer_name in found]
    return Bench(
        model=model,
        spectra_id=spectra_id,
        profile=profile,
        spectra=found,
        linear=tuple(layer for layer in layers if layer.kind == "linear"),
        tables=tuple(layer for layer in layers if layer.kind == "embedding"),
        finetune_rows=cache.dataset_summary(model.config["dataset_id"])["rows"].get("finetune", 0),
    )
