"""The `bundle` job: the ONNX file of a measured model with its encoder in front."""

import shutil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.dataset import EncodedDataset, Split
from ctrlab.errors import ServingError
from ctrlab.services.bundles import BUNDLE_FOLDER, BundleConfig
from ctrlab.services.comparison import LOGITS_FILE, latest_evaluation
from ctrlab.services.handlers import JOB_HANDLERS, JobContext
from ctrlab.services.models import INTEGERS_FILE, ONNX_FILE
from ctrlab.services.serving import IntegersConfig, latest_integers
from ctrlab.services.work.accuracy import evaluate_and_file
from ctrlab.services.work.shared import open_dataset
from ctrlab.serving.bundle.calibration import fit_calibration
from ctrlab.serving.bundle.raw_graph import Calibration
from ctrlab.serving.bundle.write import CHECK_ROWS, TOLERANCE, BundleSource, logits_of_file, write_bundle
from ctrlab.storage import Artifact, NewArtifact

#: Validation rows that calibrate.
_CALIBRATION_ROWS = 262_144


def run(config: BundleConfig, context: JobContext) -> dict[str, str]:
    """Measure the model where that was not done, write the bundle, check and file it."""
    workspace = context.workspace
    model = workspace.store.artifacts.get(config.model_id)
    dataset = open_dataset(workspace, model.config["dataset_id"])
    context.report(0.05, "measuring the model")
    evaluation = latest_evaluation(workspace, model.id) or evaluate_and_file(context, model.id)
    ids_file, tolerance = evaluation.path / ONNX_FILE, TOLERANCE
    if config.form == "integers":
        integers = _integers(config, context)
        ids_file, tolerance = integers.path / INTEGERS_FILE, float(integers.summary["largest_change"]) + TOLERANCE
    context.report(0.6, "writing encoder and model, and comparing answers")
    check = dataset.split(evaluation.summary["split"])
    logits: NDArray[np.float32] = np.load(evaluation.path / LOGITS_FILE)[:CHECK_ROWS]
    interval = evaluation.summary["auc_interval"]
    auc = {name: interval[name] for name in ("estimate", "low", "high")} if interval else None
    source = BundleSource(
        dataset=dataset, ids_file=ids_file, check=check, logits=logits, tolerance=tolerance,
        calibration=_calibration(config, dataset, ids_file),
        facts={
            "name": model.name, "model": model.id, "form": config.form,
            "source": {"header": dataset.config.source.header, "column_names": dataset.config.source.column_names,
                       "label": dataset.config.label},
            "unseen_shares": {field.name: field.oov_share for field in dataset.summary.fields},
            "auc": auc and {**auc, "split": check.name, "rows": len(check)},
        },
    )  # fmt: skip
    stage = context.folder / "bundle"
    shutil.rmtree(stage, ignore_errors=True)  # of an attempt that was interrupted
    manifest = write_bundle(source, stage / BUNDLE_FOLDER)
    summary = {name: manifest[name] for name in ("version", "form", "calibration", "tolerance", "checked_rows", "columns")}
    sizes = {path.name: path.stat().st_size for path in (stage / BUNDLE_FOLDER).iterdir()}
    filed = context.add_artifact(NewArtifact(
        "bundle", f"Bundle of {model.name}", parents=[model.id], config=config.to_dict(),
        summary={**summary, "bytes": sizes}, files_from=stage,
    ))  # fmt: skip
    return {"bundle": filed.id}


def _integers(config: BundleConfig, context: JobContext) -> Artifact:
    """The form in integers, made now where there is none."""
    made = latest_integers(context.workspace, config.model_id)
    if made is None:
        context.report(0.1, "exporting in integers")
        made_now: dict[str, Any] = JOB_HANDLERS["integers"].builder()(IntegersConfig(model_id=config.model_id), context)
        made = context.workspace.store.artifacts.get(made_now["serving"])
    if made.summary["refused"]:
        raise ServingError(f"there is no bundle in integers: {made.summary['advice']}")
    return made


def _calibration(config: BundleConfig, dataset: EncodedDataset, ids_file: Any) -> Calibration | None:
    if not config.calibrate:
        return None
    rows: Split = dataset.split("valid")
    count = min(len(rows), _CALIBRATION_ROWS)
    return fit_calibration(logits_of_file(ids_file, rows, count), rows.targets(slice(0, count)))
