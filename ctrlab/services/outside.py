"""Models trained elsewhere: those that this process holds, and the job that reads a file of weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrlab.config import Config
from ctrlab.errors import DataError
from ctrlab.registry import load
from ctrlab.services.capabilities import SOURCE, Capabilities, capabilities
from ctrlab.services.factories import Factory
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.paths import input_path
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact

if TYPE_CHECKING:
    from ctrlab.anymodule.outside import OutsideModel

#: Endings of the files of weights that can be read.
WEIGHT_FILES = (".safetensors", ".npy", ".onnx")
_held: dict[tuple[Path, str], "OutsideModel"] = {}


@JOB_HANDLERS.register(
    "weights", builder="ctrlab.services.work.weights:run", title="Read weights", description="Layers and spectra of a file."
)
@dataclass(frozen=True, kw_only=True)
class WeightsConfig(Config):
    """A .safetensors, .npy or .onnx file whose layers and weight spectra are to be seen."""

    path: str
    name: str = ""


def register(
    workspace: Workspace, model: "OutsideModel", name: str, factory: Factory | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Artifact:  # fmt: skip
    """Store a module's layers, sizes, weights and spectra, and measure it where it has labels or `evaluate`.

    This process holds the module from now on. With `factory` jobs and the preview process of this user may make it again.
    on_batch(number of batches done) is called after each calibration batch.
    """
    made: Artifact = load("ctrlab.services.work.outside:register")(workspace, model, name, factory, on_batch)
    return made


def submit_weights(workspace: Workspace, path: Path, name: str = "", *, uploaded: bool = False) -> str:
    """Queue the reading of a file of weights; the job's result holds the new `model` and `spectra` ids.

    Raises:
        DataError: it is one of ctrlab's own files, or its name has another ending.
    """
    path = input_path(workspace, path, uploaded=uploaded)
    if path.suffix.lower() not in WEIGHT_FILES:
        raise DataError(
            f"{path.name} is none of {', '.join(WEIGHT_FILES)}; save the weights with safetensors.torch.save_file, because "
            "opening a pickle (.pt, .pth, .ckpt) can run code"
        )
    config = WeightsConfig(path=str(path), name=name)
    return workspace.store.jobs.submit("weights", f"Read {path.name}", config.to_dict()).id


def hold(workspace: Workspace, model_id: str, model: "OutsideModel") -> None:
    """Keep a module in this process for the jobs that run in it."""
    _held[workspace.home, model_id] = model


def held(workspace: Workspace, model_id: str) -> "OutsideModel | None":
    """The module of a stored model, where this process registered it."""
    return _held.get((workspace.home, model_id))


def abilities(workspace: Workspace, model: Artifact) -> Capabilities:
    """What can be done with a stored model by this process and the jobs that it queues."""
    original_id = model.config.get("original_id") or model.id
    return capabilities(model, held=held(workspace, original_id) is not None)


def facts_of(model: Artifact) -> dict[str, Any]:
    """Where an outside model came from: kind, address, folder, measure."""
    found: dict[str, Any] = model.config[SOURCE]
    return found
