"""The `train` job."""

import torch

from ctrlab.evaluation.metrics import rows_and_clicks
from ctrlab.models.base import build_model
from ctrlab.models.start import start_at_base_rate
from ctrlab.services.handlers import JobContext
from ctrlab.services.models import TrainConfig, default_name
from ctrlab.services.work.evaluate import measure_and_file
from ctrlab.services.work.shared import file_model, open_dataset, open_model, report_fit
from ctrlab.training.loop import fit
from ctrlab.training.smaller import smaller_config


def run(config: TrainConfig, context: JobContext) -> dict[str, str]:
    """Train, keep the best checkpoint by validation, measure it."""
    dataset = open_dataset(context.workspace, config.dataset_id)
    settings = config.model_config()
    if config.max_parameters is not None:
        settings = smaller_config(settings, dataset.schema, config.max_parameters)
    torch.manual_seed(config.fit.seed)
    model = build_model(settings, dataset.schema)
    rows, clicks = rows_and_clicks(dataset.split(config.fit.rows).targets())
    start_at_base_rate(model, clicks, rows)
    result = fit(
        model,
        dataset,
        config.fit,
        on_step=report_fit(context, 0.0, 0.9, "training"),
        should_stop=context.should_stop,
        checkpoint_path=context.folder / "fit.safetensors",
        teacher=open_model(context.workspace, config.teacher_id)[1] if config.teacher_id else None,
    )
    artifact = file_model(
        context,
        result.model,
        role="from_scratch" if config.max_parameters is not None else "original",
        name=config.name or default_name(context.workspace, config),
        parents=[config.dataset_id, *([config.teacher_id] if config.teacher_id else [])],
        config={
            "dataset_id": config.dataset_id,
            **config.to_dict(),
            "model": settings.to_dict(),
            "fit": result.config.to_dict(),
        },
        summary={"training": result.summary()},
        seed=config.fit.seed,
    )
    (evaluation,) = measure_and_file(context, [artifact.id], start=0.92)
    return {"model": artifact.id, "evaluation": evaluation.id}
