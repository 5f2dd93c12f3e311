"""Loading and filing models and datasets, as several kinds of job do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctrlab.compression.fold import cheaper_form
from ctrlab.compression.quantize import quantize
from ctrlab.data.dataset import EncodedDataset
from ctrlab.decomposition.spectrum import LayerSpectrum, load_spectra
from ctrlab.models.base import CTRModel
from ctrlab.models.checkpoint import load_model, save_model
from ctrlab.models.configs import MODELS
from ctrlab.models.cost import measure_cost
from ctrlab.models.profiling import profile_model
from ctrlab.models.structure import Precision, quantises
from ctrlab.services.annotations import free_name
from ctrlab.services.handlers import JobContext
from ctrlab.services.models import MODEL_FILE, SERVING_FILE, ModelRole, model_file, require_artifact
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, NewArtifact
from ctrlab.training.progress import FitProgress


def open_dataset(workspace: Workspace, dataset_id: str) -> EncodedDataset:
    """The encoded dataset of an artifact."""
    return EncodedDataset.open(workspace.store.artifacts.get(dataset_id).path)


def open_model(workspace: Workspace, model_id: str) -> tuple[Artifact, CTRModel, EncodedDataset]:
    """A stored model in its trainable form, with its dataset."""
    artifact = workspace.store.artifacts.get(model_id)
    dataset = open_dataset(workspace, artifact.config["dataset_id"])
    return artifact, load_model(model_file(artifact), dataset.schema), dataset


def open_serving(workspace: Workspace, model_id: str) -> tuple[Artifact, CTRModel, EncodedDataset]:
    """A stored model in the form it is served in, with its dataset."""
    artifact = workspace.store.artifacts.get(model_id)
    dataset = open_dataset(workspace, artifact.config["dataset_id"])
    return artifact, load_model(artifact.path / SERVING_FILE, dataset.schema), dataset


def open_spectra(workspace: Workspace, spectra_id: str) -> dict[str, LayerSpectrum]:
    """The spectra of an artifact with their eigenvectors."""
    return load_spectra(require_artifact(workspace, spectra_id, "spectra").path, eigenvectors=True)


def file_model(
    context: JobContext,
    model: CTRModel,
    *,
    precision: Precision = "float32",
    layer_precisions: Mapping[str, Precision] | None = None,
    name: str,
    role: ModelRole,
    parents: Sequence[str],
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    seed: int | None,
) -> Artifact:
    """Save both forms of a model, that for serving in these precisions, and file them as one artifact.

    Args:
        name: gets a number where another model has it.
    """
    profile = profile_model(model)
    serving, cost_serving = cheaper_form(model, profile.cost)
    if quantises(precision, layer_precisions or {}):
        serving = quantize(serving, precision, layer_precisions)
        cost_serving = measure_cost(serving)
    folder = context.folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, folder / MODEL_FILE)
    save_model(serving, folder / SERVING_FILE)
    facts = {
        "role": role,
        "architecture": MODELS.entry_for(model.config).title,
        "fingerprint": model.schema.fingerprint,
        "profile": profile.to_dict(),
        "cost": profile.cost.to_dict(),
        "cost_serving": cost_serving.to_dict(),
    }
    name = free_name(context.workspace, "model", name)
    return context.add_artifact(
        NewArtifact("model", name, parents=parents, config=config, summary={**facts, **summary}, seed=seed, files_from=folder)
    )


def report_fit(context: JobContext, start: float, end: float, label: str) -> Any:
    """A fit's `on_step` that moves the job's progress from `start` to `end` and draws its curves."""

    def on_step(progress: FitProgress) -> None:
        left = progress.eta_seconds
        message = f"{label}: step {progress.step:,} of {progress.total_steps:,}, {progress.rows_per_second / 1e3:.0f} k rows/s"
        context.report(start + (end - start) * progress.fraction, message, left)
        context.metric(
            progress.step, train_loss=progress.train_loss, valid_auc=progress.valid_auc, valid_log_loss=progress.valid_log_loss
        )

    return on_step


def stage_folder(context: JobContext, name: str) -> Path:
    """A folder for a stage's checkpoints inside the job's own."""
    folder = context.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
