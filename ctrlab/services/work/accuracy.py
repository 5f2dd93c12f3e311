"""Accuracy of a stored model's serving form, and its ONNX file: the artifact of kind evaluation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.evaluation.delong import auc_difference, auc_interval
from ctrlab.evaluation.metrics import metrics_of
from ctrlab.evaluation.prediction import predict_logits
from ctrlab.services.capabilities import is_outside
from ctrlab.services.comparison import LOGITS_FILE, EvaluateConfig, latest_evaluation
from ctrlab.services.handlers import JobContext
from ctrlab.services.models import ONNX_FILE
from ctrlab.services.work import outside
from ctrlab.services.work.shared import open_serving, stage_folder
from ctrlab.services.workspace import Workspace
from ctrlab.serving.onnx_export import export_onnx
from ctrlab.storage import Artifact, NewArtifact

#: Logits that differ by less are one prediction.
CONSTANT_LOGITS = 1e-6


def evaluate_and_file(context: JobContext, model_id: str, config: EvaluateConfig | None = None) -> Artifact:
    """Accuracy of one model's serving form, with its ONNX file."""
    config = config or EvaluateConfig(model_ids=(model_id,))
    stored = context.workspace.store.artifacts.get(model_id)
    if is_outside(stored):
        return outside.evaluate_and_file(context, stored)
    artifact, serving, dataset = open_serving(context.workspace, model_id)
    split = config.split if config.split in dataset.splits else "valid"
    rows = dataset.split(split)
    logits = predict_logits(serving, rows, should_stop=context.should_stop)
    targets = rows.targets()
    metrics = metrics_of(targets, logits)
    context.stop_if_requested()
    folder = stage_folder(context, f"evaluation-{model_id}")
    np.save(folder / LOGITS_FILE, logits)
    export_onnx(serving, folder / ONNX_FILE)
    summary = {
        "split": split,
        "auc_change": _change_from_original(context.workspace, artifact, split, targets, logits),
        "metrics": metrics.to_dict(),
        "auc_interval": auc_interval(targets, logits).to_dict() if 0 < metrics.num_clicks < metrics.num_rows else {},
        "constant_prediction": bool(np.ptp(logits) < CONSTANT_LOGITS),
        "onnx_bytes": (folder / ONNX_FILE).stat().st_size,
    }
    return context.add_artifact(
        NewArtifact(
            "evaluation",
            f"Measurement of {artifact.name}",
            parents=[model_id],
            config=config.to_dict(),
            summary=summary,
            files_from=folder,
        ),
        key=f"evaluation of {model_id}",
    )


def _change_from_original(
    workspace: Workspace, model: Artifact, split: str, targets: NDArray[np.float32], logits: NDArray[np.float32]
) -> dict[str, Any] | None:
    """The change of AUC from the model's original, which a comparison would take seconds to compute from millions of rows."""
    original_id = model.config.get("original_id")
    evaluation = latest_evaluation(workspace, original_id) if original_id else None
    if evaluation is None or evaluation.summary["split"] != split or evaluation.summary["metrics"]["auc"] is None:
        return None
    reference = np.load(evaluation.path / LOGITS_FILE)
    return {"reference": original_id, "interval": auc_difference(targets, logits, reference).to_dict()}
