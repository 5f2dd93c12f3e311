"""Comparison: measure models on the same rows, and set the numbers side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctrlab.config import Config, option
from ctrlab.data.dataset import EncodedDataset
from ctrlab.errors import ConfigError
from ctrlab.evaluation.delong import Interval, auc_difference
from ctrlab.evaluation.speed_ratio import SpeedRatio
from ctrlab.models.profile import ModelProfile
from ctrlab.reports.comparison import LATENCY_BATCH_SIZES, RUNTIMES
from ctrlab.reports.model_settings import settings_of
from ctrlab.services.capabilities import is_outside
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.models import require_models, role_of
from ctrlab.services.of_model import newest_of_model, newest_of_models
from ctrlab.services.outside import abilities
from ctrlab.services.timing import latencies_in, ratio_in
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact

#: Of an evaluation: float32 (n,), the logits of the split's rows.
LOGITS_FILE = "logits.npy"
#: More models are counted in a job's title.
_NAMED = 3


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
    """Queue the measurement; the job's result lists the new `evaluations`.

    Raises:
        ConfigError: one of the models cannot be measured; the sentence says why.
    """
    models = require_models(workspace, config.model_ids)
    for model in models:
        abilities(workspace, model).require("measure")
    names = [model.name for model in models]
    title = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} models"
    return workspace.store.jobs.submit("evaluate", f"Measure {title}", config.to_dict()).id


def latest_evaluation(workspace: Workspace, model_id: str) -> Artifact | None:
    """The newest measurement of a model, if there is one."""
    return newest_of_model(workspace, "evaluation", model_id)


def comparison_table(workspace: Workspace, model_ids: Sequence[str], baseline: str | None = None) -> pd.DataFrame:
    """One row a model; NaN where a model was not measured.

    Columns: id, name, kind (the role of the model: "original", "compressed", "control" or "from_scratch"), architecture, method
    (title; "" for none), ranks (in short), rank_share (ranks kept over widths of the layers that can be compressed), bits (of the
    served weights), split, measured_rows and measured_clicks, auc with auc_low and auc_high (95 % interval), log_loss,
    calibration_ratio, calibration_error, measure (by an outside model's own `evaluate`),
    auc_change with auc_change_low and auc_change_high (DeLong's paired interval of the
    difference from the baseline on the same rows), parameters_tables, parameters_dense, bytes_tables, bytes_dense, macs (per row;
    all of the served form), smaller (bytes of the baseline over its own), and for runtime r in (torch, onnx) and batch size b:
    r_p50_ms_b, r_p99_ms_b, r_rows_per_second_b, and r_speedup_b (throughput divided by that of the baseline, where both were
    timed in one job) with r_speedup_low_b, r_speedup_high_b (95 % interval) and r_speedup_reason_b (why there is no verdict; ""
    where there is one). AUCs are NaN on rows of one class.

    Args:
        baseline: id of the model in the list that the others are compared with; the first original when not given.

    Raises:
        UnknownNameError, ConfigError: an id is unknown or is no model's; the baseline is not in the list.
    """
    found = require_models(workspace, model_ids)
    return table_of_models(workspace, found, newest_of_models(workspace, "evaluation", model_ids), baseline)


def table_of_models(
    workspace: Workspace, found: Sequence[Artifact], evaluations: Mapping[str, Artifact], baseline: str | None
) -> pd.DataFrame:
    """`comparison_table` of models and evaluations that were read before."""
    reference, model_ids = _baseline(found, baseline), [model.id for model in found]
    profiles = _profiles(workspace, found)
    timings = workspace.store.artifacts.list(kind="timing", parent=model_ids)
    rows = []
    for model in found:
        row = _comparison_row(model, evaluations.get(model.id)) | settings_of(model, profiles.get(original_id_of(model)))
        row |= _changes(workspace, model, reference, evaluations)
        rows.append(row | _speeds([own for own in timings if model.id in own.parents], model, reference, model_ids))
    table = pd.DataFrame(rows)
    bytes_before = table.loc[table["id"] == reference.id, "bytes"].iloc[0] if reference else np.nan
    return table.assign(smaller=bytes_before / table["bytes"].clip(lower=1))


def _baseline(models: Sequence[Artifact], wanted: str | None) -> Artifact | None:
    if wanted is None:
        return next((model for model in models if role_of(model) == "original"), None)
    found = next((model for model in models if model.id == wanted), None)
    if found is None:
        raise ConfigError(f"the baseline {wanted} is not among the models compared; add it, or give one of them")
    return found


def _profiles(workspace: Workspace, models: Sequence[Artifact]) -> dict[str, ModelProfile]:
    """{id: profile} of the originals of `models`."""
    known = {model.id: model for model in models}
    wanted = dict.fromkeys(original_id_of(model) for model in models if model.config.get("compression"))
    artifacts = workspace.store.artifacts
    found = [known[model_id] if model_id in known else artifacts.get(model_id) for model_id in wanted]
    return {model.id: ModelProfile.from_dict(model.summary["profile"]) for model in found}


def original_id_of(model: Artifact) -> str:
    """Id of the uncompressed model that a model came from; an original's own."""
    return str(model.config.get("original_id") or model.id)


def auc_change(workspace: Workspace, model: Artifact, reference: Artifact) -> Interval | None:
    """AUC of a model minus that of a reference, with its interval.

    None unless both were measured on the same rows, and those are of both classes.
    """
    return _change_between(workspace, model, reference, newest_of_models(workspace, "evaluation", [model.id, reference.id]))


def _change_between(
    workspace: Workspace, model: Artifact, reference: Artifact, evaluations: Mapping[str, Artifact]
) -> Interval | None:
    dataset_id = model.config.get("dataset_id")
    ours, theirs = evaluations.get(model.id), evaluations.get(reference.id)
    if ours is None or theirs is None or model.id == reference.id or ours.summary["split"] != theirs.summary["split"]:
        return None
    stored = ours.summary.get("auc_change")
    if stored is not None and stored["reference"] == reference.id:
        return Interval(**stored["interval"])
    if dataset_id is None or dataset_id != reference.config.get("dataset_id"):
        return None
    return change_of_scores(workspace.store.artifacts.folder(dataset_id), ours, theirs)


def change_of_scores(dataset: Path, ours: Artifact, theirs: Artifact) -> Interval | None:
    """The change of AUC between two evaluations on the same split of a dataset's folder; None where a class is missing."""
    files = ours.path / LOGITS_FILE, theirs.path / LOGITS_FILE
    if ours.summary["metrics"]["auc"] is None or not all(path.is_file() for path in files):
        return None
    return _auc_change(dataset, ours.summary["split"], *files)


@lru_cache(maxsize=4096)  # evaluations never change once written
def _auc_change(dataset: Path, split: str, ours: Path, theirs: Path) -> Interval:
    return auc_difference(targets_of(dataset, split), np.load(ours), np.load(theirs))


@lru_cache(maxsize=2)
def targets_of(dataset: Path, split: str) -> NDArray[np.float32]:
    """What the rows of a split were measured against, `Split.targets`; do not change it."""
    return EncodedDataset.open(dataset).split(split).targets()


def _changes(
    workspace: Workspace, model: Artifact, reference: Artifact | None, evaluations: Mapping[str, Artifact]
) -> dict[str, float]:
    change = _change_between(workspace, model, reference, evaluations) if reference is not None else None
    if change is None:
        return dict.fromkeys(("auc_change", "auc_change_low", "auc_change_high"), np.nan)
    return {"auc_change": change.estimate, "auc_change_low": change.low, "auc_change_high": change.high}


def _comparison_row(model: Artifact, evaluation: Artifact | None) -> dict[str, Any]:
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
    row["measure"] = _number(measured.get("measure"))
    row |= {f"auc_{end}": measured.get("auc_interval", {}).get(end, np.nan) for end in ("low", "high")}
    row |= {key: cost[key] for key in ("parameters_tables", "parameters_dense", "bytes_tables", "bytes_dense", "macs")}
    row["parameters"] = row["parameters_tables"] + row["parameters_dense"]
    row["bytes"] = row["bytes_tables"] + row["bytes_dense"]
    return row


def _speeds(timings: Sequence[Artifact], model: Artifact, reference: Artifact | None, together: Sequence[str]) -> dict[str, Any]:
    """Latencies of the newest of the model's timings, and ratios to the reference."""
    latencies = latencies_in(timings, model.id, together)
    row: dict[str, Any] = {}
    for runtime in RUNTIMES:
        for size in LATENCY_BATCH_SIZES:
            timing = latencies.get(runtime, {}).get(str(size), {})
            row |= {f"{runtime}_{key}_{size}": timing.get(key, np.nan) for key in ("p50_ms", "p99_ms", "rows_per_second")}
            if reference is None or reference.id == model.id or is_outside(model):
                found = SpeedRatio(batch_size=size, runtime=runtime)
            else:
                found = ratio_in(timings, model.id, reference.id, runtime=runtime, batch_size=size)
            row |= {f"{runtime}_speedup_{size}": found.ratio, f"{runtime}_speedup_reason_{size}": found.reason}
            row |= {f"{runtime}_speedup_{end}_{size}": getattr(found, end) for end in ("low", "high")}
    return row


def _number(value: float | None) -> float:
    """NaN for what was not measured, or is not defined on the rows: an AUC without clicks."""
    return np.nan if value is None else value
