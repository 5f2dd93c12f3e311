"""The sample: a small generated dataset with a trained model and its spectra."""

import re
from dataclasses import dataclass
from pathlib import Path

import ctrlab
from ctrlab.config import Config
from ctrlab.errors import DataError
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.training.configs import FINETUNE

SAMPLE_CONFIG_FILE = "config.json"
SAMPLE_TABLE = "clicks.csv.gz"
SAMPLE_NAME = "Sample ads"
SAMPLE_MODEL_NAME = "DeepFM on the sample"
#: One epoch a stage on rows the sample's model has not seen: on its training rows it would overfit.
SAMPLE_FINETUNE = FINETUNE.replace(batch_size=256, rows="finetune")


@JOB_HANDLERS.register(
    "open_sample", builder="ctrlab.services.work.sample:run", title="Open the sample", description="Encode, load, decompose."
)
@dataclass(frozen=True, kw_only=True)
class OpenSampleConfig(Config):
    """No settings: everything comes from the committed files."""


def sample_folder() -> Path:
    """`sample_data/` beside the package; DataError where only the package was installed."""
    folder = Path(ctrlab.__file__).parents[1] / "sample_data"
    if not (folder / SAMPLE_CONFIG_FILE).exists():
        raise DataError(
            "the sample files are not installed with the package; clone the project to use them, or load your own table"
        )
    return folder


def submit_open_sample(workspace: Workspace) -> str:
    """Queue the opening; the job's result holds the `dataset`, `model` and `spectra` ids."""
    sample_folder()
    return workspace.store.jobs.submit("open_sample", "Open the sample", OpenSampleConfig().to_dict()).id


def sample_ids(workspace: Workspace) -> dict[str, str] | None:
    """The ids of the sample's dataset, model and spectra when it was opened before and is still complete."""
    artifacts = workspace.store.artifacts
    for dataset in artifacts.list(kind="dataset"):
        if not _is_called(dataset, SAMPLE_NAME):
            continue
        models = [model for model in artifacts.list(kind="model", parent=dataset.id) if _is_called(model, SAMPLE_MODEL_NAME)]
        spectra = [artifact for model in models[:1] for artifact in artifacts.list(kind="spectra", parent=model.id)]
        if spectra:
            return {"dataset": dataset.id, "model": models[0].id, "spectra": spectra[0].id}
    return None


def _is_called(artifact: Artifact, name: str) -> bool:
    """Whether it has this name, which is numbered where the sample was opened more than once."""
    return re.fullmatch(re.escape(name) + r"(, \d+)?", artifact.name) is not None
