"""The `compress` job: factors and fine-tuning stage by stage, then the same measurement for original and result."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ctrlab.compression.pipeline import PipelineResult, compress_and_finetune
from ctrlab.services.capabilities import is_outside
from ctrlab.services.compression import CompressJobConfig, compressed_name
from ctrlab.services.handlers import JobContext
from ctrlab.services.work import outside
from ctrlab.services.work.evaluate import measure_and_file
from ctrlab.services.work.shared import file_model, open_model, open_spectra, stage_folder
from ctrlab.training.progress import FitProgress

#: Share of the progress bar that compression and fine-tuning take when measuring follows.
_PIPELINE_SHARE = 0.85


def run(config: CompressJobConfig, context: JobContext) -> dict[str, str]:
    """Compress, fine-tune, store the model, and measure it and its original."""
    stored = context.workspace.store.artifacts.get(config.model_id)
    if is_outside(stored):
        return outside.compress_and_file(config, context, stored)
    original, model, dataset = open_model(context.workspace, config.model_id)
    spectra = open_spectra(context.workspace, config.spectra_id)
    share = _PIPELINE_SHARE if config.measure else 1.0
    result = compress_and_finetune(
        model,
        dataset,
        config.compress,
        spectra,
        on_progress=lambda fraction, message: context.report(share * fraction, message),
        on_step=_curves(context),
        should_stop=context.should_stop,
        checkpoint_dir=stage_folder(context, "stages"),
    )
    compressed = file_model(
        context,
        result.model,
        role="compressed",
        precision=config.compress.precision,
        layer_precisions=config.compress.precisions_by_layer,
        name=config.name or compressed_name(context.workspace, config),
        parents=[original.id, config.spectra_id],
        config={
            "dataset_id": original.config["dataset_id"],
            "architecture": original.config["architecture"],
            "model": original.config["model"],
            "original_id": original.id,
            "spectra_id": config.spectra_id,
            "compression": config.compress.to_dict(),
            **({"is_control": True} if config.is_control else {}),
        },
        summary={"compression": _summary(result)},
        seed=config.compress.finetune.seed if config.compress.finetune else None,
    )
    if config.measure:
        measure_and_file(context, [compressed.id], start=share)
    return {"model": compressed.id}


def _curves(context: JobContext) -> Callable[[str, FitProgress], None]:
    """Draws all stages on one axis of steps, one after the other."""
    lengths: dict[str, int] = {}

    def on_step(stage: str, progress: FitProgress) -> None:
        lengths[stage] = progress.total_steps
        step = progress.step + sum(steps for name, steps in lengths.items() if name != stage)
        context.metric(step, train_loss=progress.train_loss, valid_auc=progress.valid_auc, valid_log_loss=progress.valid_log_loss)

    return on_step


def _summary(result: PipelineResult) -> dict[str, Any]:
    stages = [{key: value for key, value in asdict(stage).items() if key != "history"} for stage in result.stages]
    return {
        "ranks": result.plan.as_dict(),
        "stages": stages,
        "layers": [asdict(row) for row in result.rows],
        "skipped": result.skipped,
        "truncated_auc": result.truncated_auc,
        "truncated_log_loss": result.truncated_log_loss,
        "kept_truncated": result.kept_truncated,
    }
