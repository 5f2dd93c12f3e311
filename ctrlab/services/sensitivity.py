"""Sensitivity: measure the accuracy that each layer loses at each rank, and read it back."""

import threading
from dataclasses import dataclass

import pandas as pd

from ctrlab.config import Config, option
from ctrlab.plans.sensitivity import Sensitivity, load_sensitivity
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.models import require_artifact
from ctrlab.services.of_model import newest_of_model, submit_for_model
from ctrlab.services.outside import abilities
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact

#: Of two pages that open at once, one queues.
_queueing = threading.Lock()


@JOB_HANDLERS.register(
    "sensitivity",
    builder="ctrlab.services.work.sensitivity:run",
    title="Sensitivity",
    description="Accuracy against rank, one layer at a time.",
)
@dataclass(frozen=True, kw_only=True)
class SensitivityConfig(Config):
    """Which model, truncated by which spectra, measured on how many rows."""

    model_id: str
    spectra_id: str
    max_rows: int = option(
        16_384, minimum=100, label="Validation rows", help="Drawn at random where the validation split has more."
    )


def submit_sensitivity(workspace: Workspace, config: SensitivityConfig) -> str:
    """Queue the measurement; the job's result holds the new `sensitivity` id."""
    return submit_for_model(workspace, "sensitivity", "Sensitivity of {model}", config, needs=("spectra",))


def measure_once(workspace: Workspace, config: SensitivityConfig) -> None:
    """Queue the measurement where it is possible and these spectra have none and none was ever queued, however it ended."""
    if not abilities(workspace, require_artifact(workspace, config.model_id, "model")).allows("sensitivity"):
        return
    with _queueing:
        if latest_sensitivity(workspace, config.model_id) is None and not _was_queued(workspace, config.spectra_id):
            submit_sensitivity(workspace, config)


def _was_queued(workspace: Workspace, spectra_id: str) -> bool:
    return any(job.kind == "sensitivity" and job.config.get("spectra_id") == spectra_id for job in workspace.store.jobs.list())


def latest_sensitivity(workspace: Workspace, model_id: str) -> Artifact | None:
    """The newest sensitivity of a model, if it was measured."""
    return newest_of_model(workspace, "sensitivity", model_id)


def load_model_sensitivity(workspace: Workspace, sensitivity_id: str) -> Sensitivity:
    """The measured sensitivity of every layer."""
    return load_sensitivity(require_artifact(workspace, sensitivity_id, "sensitivity").path)


def sensitivity_table(workspace: Workspace, sensitivity_id: str) -> pd.DataFrame:
    """One row a layer and rank: layer, rank, auc, log_loss, auc_loss, log_loss_increase (the last two fitted to be monotone)."""
    found = load_model_sensitivity(workspace, sensitivity_id)
    rows = [
        {"layer": name, "rank": rank, "auc": layer.aucs[number], "log_loss": layer.log_losses[number],
         "auc_loss": layer.auc_losses[number], "log_loss_increase": layer.log_loss_increases[number]}
        for name, layer in found.layers.items()
        for number, rank in enumerate(layer.ranks)
    ]  # fmt: skip
    return pd.DataFrame(rows)
