"""The `integers` job: the integer form of a model's float serving form, compared with it in answers and in speed."""

from pathlib import Path
from typing import Any

from ctrlab.compression.fold import serving_form
from ctrlab.data.dataset import Split
from ctrlab.evaluation.latency import Contender, time_together
from ctrlab.evaluation.speed_ratio import SpeedRatio, ratio_of_rounds
from ctrlab.reports.comparison import LATENCY_BATCH_SIZES
from ctrlab.services.handlers import JobContext
from ctrlab.services.models import INTEGERS_FILE, ONNX_FILE
from ctrlab.services.serving import IntegersConfig
from ctrlab.services.work.shared import open_model, stage_folder
from ctrlab.services.work.speed import processor
from ctrlab.serving.integer_export import IntegerForm, Limits, export_integers
from ctrlab.serving.integers import EVERYWHERE, WITH_VNNI
from ctrlab.serving.processor import has_vnni
from ctrlab.storage import NewArtifact


def run(config: IntegersConfig, context: JobContext) -> dict[str, str]:
    """Export, check, time both forms, and file what was found; the integer file is part of it where it was not refused."""
    artifact, model, dataset = open_model(context.workspace, config.model_id)
    rows = dataset.split(config.split if config.split in dataset.splits else "valid")
    folder = stage_folder(context, "serving")
    context.report(0.1, "exporting in integers and comparing answers")
    form = export_integers(
        serving_form(model), folder / INTEGERS_FILE, dataset.split("train"), rows,
        limits=Limits(probability=config.max_probability_change, auc_loss=config.max_auc_loss),
        limit=WITH_VNNI if config.weights == "vnni" else EVERYWHERE, float_file=folder / ONNX_FILE,
    )  # fmt: skip
    context.report(0.5, "timing both forms in turns")
    speeds = [] if form.refused else _speeds(folder, rows, context)
    (folder / ONNX_FILE).unlink(missing_ok=True)
    filed = context.add_artifact(NewArtifact(
        "serving", f"{artifact.name} in integers", parents=[artifact.id], config=config.to_dict(), files_from=folder,
        summary={**form.to_dict(), "speeds": [vars(speed) for speed in speeds], "processor": processor(), "vnni": has_vnni(),
                 "advice": advice(form, speeds, vnni=has_vnni())},
    ))  # fmt: skip
    return {"serving": filed.id}


def _speeds(folder: Path, rows: Split, context: JobContext) -> list[SpeedRatio]:
    """How many times as fast as the float form, in ONNX Runtime, by batch size."""
    contenders = {"float": Contender(onnx_file=folder / ONNX_FILE), "integers": Contender(onnx_file=folder / INTEGERS_FILE)}
    found: Any = time_together(contenders, rows, LATENCY_BATCH_SIZES, should_stop=context.should_stop)["onnx"]
    return [
        ratio_of_rounds(found["integers"][size].to_dict(), found["float"][size].to_dict(), batch_size=size, runtime="onnx")
        for size in LATENCY_BATCH_SIZES
    ]


def advice(form: IntegerForm, speeds: list[SpeedRatio], *, vnni: bool) -> str:
    """Which form to serve on this machine, and why."""
    if form.refused:
        return f"serve the float form: {form.refused}"
    without = "" if vnni else "; this processor has no VNNI, which multiplies integers faster"
    slower = [speed for speed in speeds if not speed.reason and speed.high < 1]
    faster = [speed for speed in speeds if not speed.reason and speed.low > 1]
    if slower:
        sizes = ", ".join(f"{speed.ratio:.2f}x at batch {speed.batch_size}" for speed in slower)
        return f"serve the float form at these batch sizes, at which it is faster here: integers are {sizes}{without}"
    if faster:
        sizes = ", ".join(f"{speed.ratio:.2f}x at batch {speed.batch_size}" for speed in faster)
        return f"serve integers: as fast as the float form, or faster: {sizes}{without}"
    return f"serve either: no difference in speed was measured, and integers are the smaller file{without}"
