"""The data of the Compress page: a model, its profile and its spectra."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.profile import LayerProfile, ModelProfile
from ctrlab.services.capabilities import Capabilities
from ctrlab.services.outside import abilities
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.ui import cache


@dataclass(frozen=True)
class CompressContext:
    """A model with its profile and spectra; `linear` and `tables` are its compressible layers that have a spectrum.

    train_rows, finetune_rows: of the dataset; 0 for a model from outside, which has none.
    """

    workspace: Workspace
    model: Artifact
    spectra_id: str
    profile: ModelProfile
    spectra: Mapping[str, LayerSpectrum]
    linear: tuple[LayerProfile, ...]
    tables: tuple[LayerProfile, ...]
    abilities: Capabilities
    train_rows: int
    finetune_rows: int

    @cached_property
    def layers(self) -> tuple[LayerProfile, ...]:
        """Linear layers, then tables."""
        return self.linear + self.tables


def load_context(workspace: Workspace, model_id: str, spectra_id: str) -> CompressContext:
    """The context of a model, of parts that `cache` shares between sessions."""
    model = workspace.store.artifacts.get(model_id)
    profile, spectra = cache.model_profile(workspace, model_id), cache.layer_spectra(workspace, spectra_id)
    layers = [layer for layer in profile.compressible if layer.layer_name in spectra]
    dataset_id = model.config.get("dataset_id")
    rows = cache.dataset_summary(workspace, dataset_id)["rows"] if dataset_id else {}
    return CompressContext(
        workspace=workspace,
        model=model,
        spectra_id=spectra_id,
        profile=profile,
        spectra=spectra,
        linear=tuple(layer for layer in layers if layer.kind == "linear"),
        tables=tuple(layer for layer in layers if layer.kind == "embedding"),
        abilities=abilities(workspace, model),
        train_rows=rows.get("train", 0),
        finetune_rows=rows.get("finetune", 0),
    )
