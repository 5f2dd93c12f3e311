"""Comparison: measure models on the same rows with the same clock, and set the numbers side by side."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ctrlab.config import Config, option
from ctrlab.data.dataset import EncodedDataset
from ctrlab.evaluation.delong import Interval, auc_difference
from ctrlab.reports.comparison import LATENCY_BATCH_SIZES
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.models import require_artifact, role_of
from ctrlab.services.of_model import newest_of_model
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact

#: Of an evaluation: float32 (n,), the logits of the split's rows.
LOGITS_FILE = "logits.npy"


@JOB_HANDLERS.register(
    "evaluate", builder="ctrlab.services.work.evaluate:run", title="Measure", description="AUC, size and speed of models."
)
@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Config):
    """Which models to measure, on which rows."""

    model_ids: tuple[str, ...]
    split: str = option("test", choices=("valid", "test"), help="Rows the accuracy is measured on.")
    batch_sizes: tuple[int, ...] = option(LATENCY_BATCH_SIZES, minimum=1, maximum=1 << 20, help="Batch sizes to time.")
    seconds_per_timing: float = option(
        0.4, minimum=0.05, maximum=60.0, advanced=True, unit="s", help="Time spent on each timing."
    )
    threads: int | None = option(None, minimum=1, maximum=256, advanced=True, help="Empty for all cores.")


def submit_evaluate(workspace: Workspace, config: EvaluateConfig) -> str:
    """Queue the measurement; the job's result lists the new `evaluations`."""
    names = [require_artifact(workspace, model_id, "model").name for model_id in config.model_ids]
    return workspace.store.jobs.submit("evaluate", f"Measure {', '.join(names)}", config.to_dict()).id


def latest_evaluation(workspace: Workspace, model_id: str) -> Artifact | None:
    """The newest measurement of a model, if there is one."""
    return newest_of_model(workspace, "evaluation", model_id)


def comparison_table(workspace: Workspace, model_ids: list[str]) -> pd.DataFrame:
    """One row a model; NaN where a model was not measured.

    Columns: id, name, kind (the role of the model: "original", "compressed", "control" or "from_scratch"), architecture, split,
    measured_rows and measured_clicks, auc with auc_low and auc_high (95 % interval), log_loss, calibration_ratio,
    calibration_error, auc_change with auc_change_low and auc_change_high (DeLong's paired interval of the difference from the
    first original in the list, on the same rows), parameters_tables, parameters_dense, bytes_tables, bytes_dense, macs (per row;
    all of the served form), and for runtime r in (torch, onnx) and batch size b: r_p50_ms_b, r_p99_ms_b, r_rows_per_second_b.
    AUCs are NaN on rows of one class.
    """
    found = [require_artifact(workspace, model_id, "model") for model_id in model_ids]
    reference = next((model for model in found if role_of(model) == "original"), None)
    rows = [_comparison_row(workspace, model) | _changes(workspace, model, reference) for model in found]
    return pd.DataFrame(rows)


def auc_change(workspace: Workspace, model: Artifact, reference: Artifact) -> Interval | None:
    """AUC of a model minus that of a reference, with its interval.

    None unless both were measured on the same rows, and those are of both classes.
    """
    dataset_id = model.config.get("dataset_id")
    pair = [latest_evaluation(workspace, artifact.id) for artifact in (model, reference)]
    if None in pair or dataset_id is None or dataset_id != reference.config.get("dataset_id") or model.id == reference.id:
        return None
    ours, theirs = (evaluation for evaluation in pair if evaluation is not None)
    if ours.summary["split"] != theirs.summary["split"]:
        return None
    files = ours.path / LOGITS_FILE, theirs.path / LOGITS_FILE
    if ours.summary["metrics"]["auc"] is None or not all(path.is_file() for path in files):
        return None
    return _auc_change(workspace.store.artifacts.get(dataset_id).path, ours.summary["split"], *files)


@lru_cache(maxsize=256)  # evaluations never change once written
def _auc_change(dataset: Path, split: str, ours: Path, theirs: Path) -> Interval:
    labels = EncodedDataset.open(dataset).split(split).targets()
    return auc_difference(labels, np.load(ours), np.load(theirs))


def _changes(workspace: Workspace, model: Artifact, reference: Artifact | None) -> dict[str, float]:
    change = auc_change(workspace, model, reference) if reference is not None else None
    if change is None:
        return dict.fromkeys(("auc_change", "auc_change_low", "auc_change_high"), np.nan)
    return {"auc_change": change.estimate, "auc_change_low": change.low, "auc_change_high": change.high}


def _comparison_row(workspace: Workspace, model: Artifact) -> dict[str, Any]:
    evaluation = latest_evaluation(workspace, model.id)
    measured = evaluation.summary if evaluation else {}
    metrics, cost = measured.get("metrics", {}), model.summary["cost_serving"]
    row: dict[str, Any] = {
        "id": model.id,
        "name": model.name,
        "kind": role_of(model),
        "architecture": model.summary["architecture"],
        "split": measured.get("split"),
        "measured_rows": metrics.get("num_rows"),
        "measured_clicks": metrics.get("num_clicks"),
    }
    row |= {key: _number(metrics.get(key)) for key in ("auc", "log_loss", "calibration_ratio", "calibration_error")}
    row |= {f"auc_{end}": measured.get("auc_interval", {}).get(end, np.nan) for end in ("low", "high")}
    row |= {key: cost[key] for key in ("parameters_tables", "parameters_dense", "bytes_tables", "bytes_dense", "macs")}
    row["parameters"] = row["parameters_tables"] + row["parameters_dense"]
    row["bytes"] = row["bytes_tables"] + row["bytes_dense"]
    for runtime in ("torch", "onnx"):
        timings = measured.get("latency", {}).get(runtime, {})
        for batch_size in LATENCY_BATCH_SIZES:
            timing = timings.get(str(batch_size), {})
            for key in ("p50_ms", "p99_ms", "rows_per_second"):
                row[f"{runtime}_{key}_{batch_size}"] = timing.get(key, np.nan)
    return row


def _number(value: float | None) -> float:
    """NaN for what was not measured, or is not defined on the rows: an AUC without clicks."""
    return np.nan if value is None else value


def config_difference(workspace: Workspace, id_a: str, id_b: str) -> pd.DataFrame:
    """The settings in which two artifacts differ: columns setting, a, b. A setting that one lacks shows as "-"."""
    a, b = (_flatten(workspace.store.artifacts.get(artifact_id).config) for artifact_id in (id_a, id_b))
    names = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    return pd.DataFrame(
        {"setting": names, "a": [str(a.get(n, "-")) for n in names], "b": [str(b.get(n, "-")) for n in names]}, dtype=object
    )


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {name: leaf for key, item in value.items() for name, leaf in _flatten(item, f"{prefix}{key}.").items()}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {name: leaf for i, item in enumerate(value) for name, leaf in _flatten(item, f"{prefix}{i}.").items()}
    return {prefix.rstrip("."): value}
