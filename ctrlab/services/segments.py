"""Where a model loses against another: by segment of rows and by row, measured once and stored."""

import json
from dataclasses import dataclass

import pandas as pd

from ctrlab.config import Config, option
from ctrlab.errors import ConfigError
from ctrlab.services.comparison import LOGITS_FILE, latest_evaluation
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.models import require_models
from ctrlab.services.outside import abilities
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact

#: Inside an artifact's folder: a list of segments with their changes, and a list of rows.
SEGMENTS_FILE, ROWS_FILE = "segments.json", "rows.json"


@JOB_HANDLERS.register(
    "segments", builder="ctrlab.services.work.segments:run", title="Segments", description="Where a model loses against another."
)
@dataclass(frozen=True, kw_only=True)
class SegmentsConfig(Config):
    """Which model, against which; both were measured on the same rows."""

    model_id: str
    reference_id: str
    rows: int = option(20, minimum=1, maximum=1000, label="Rows", help="Rows that are listed, those whose scores moved most.")


def submit_segments(workspace: Workspace, config: SegmentsConfig) -> str:
    """Queue the measurement; the job's result holds the new `segments` id.

    Raises:
        ConfigError: the models are one, are from outside, are of different datasets, or were not measured on the same rows.
    """
    model, reference = require_models(workspace, [config.model_id, config.reference_id])
    for own in (model, reference):
        abilities(workspace, own).require("segments")
    if model.id == reference.id:
        raise ConfigError(f"{model.name} is compared with itself; give another model to compare it with")
    evaluations = [latest_evaluation(workspace, own.id) for own in (model, reference)]
    if unmeasured := [own.name for own, found in zip((model, reference), evaluations, strict=True) if not _has_scores(found)]:
        raise ConfigError(
            f"{' and '.join(unmeasured)} has no stored scores; measure it first, by `compare` or on the Compare page"
        )
    splits = {found.summary["split"] for found in evaluations if found is not None}
    if len(splits) > 1 or model.config["dataset_id"] != reference.config["dataset_id"]:
        raise ConfigError(f"{model.name} and {reference.name} were measured on different rows; choose models of one dataset")
    return workspace.store.jobs.submit("segments", f"Segments of {model.name} against {reference.name}", config.to_dict()).id


def _has_scores(evaluation: Artifact | None) -> bool:
    return evaluation is not None and (evaluation.path / LOGITS_FILE).is_file()


def latest_segments(workspace: Workspace, model_id: str, reference_id: str) -> Artifact | None:
    """The newest segments of a model against a reference, if they were measured."""
    found = workspace.store.artifacts.list(kind="segments", parent=model_id)
    return next((own for own in found if own.config["reference_id"] == reference_id and own.config["model_id"] == model_id), None)


def segments_table(segments: Artifact) -> pd.DataFrame:
    """One row a segment, the largest certain rise of log loss first.

    Columns: segment (in words), kind ("score", "value" or "frequency"), field, rows, clicks, auc_reference, auc, auc_change,
    auc_change_low, auc_change_high, log_loss_change, log_loss_change_low, log_loss_change_high, share (of the whole rise in log
    loss). Intervals hold for all segments together.
    """
    found = json.loads((segments.path / SEGMENTS_FILE).read_text(encoding="utf-8"))
    return pd.DataFrame([_flat(row) for row in found])


def moved_table(segments: Artifact) -> pd.DataFrame:
    """The rows whose scores moved most: columns row (in the split), click, before, after, then the fields as texts."""
    return pd.DataFrame(json.loads((segments.path / ROWS_FILE).read_text(encoding="utf-8")))


def _flat(row: dict[str, object]) -> dict[str, object]:
    flat = {key: value for key, value in row.items() if not isinstance(value, dict)}
    for key, value in row.items():
        if isinstance(value, dict) and "estimate" in value:
            flat |= {key: value["estimate"], f"{key}_low": value["low"], f"{key}_high": value["high"]}
    return flat
