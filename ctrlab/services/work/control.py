"""The `control` job: an original trained as a compression does, with nothing compressed."""

from ctrlab.compression.qr_hash import with_reinitialised_tables
from ctrlab.services.controls import ControlConfig
from ctrlab.services.handlers import JobContext
from ctrlab.services.work.evaluate import measure_and_file
from ctrlab.services.work.shared import file_model, open_model, report_fit
from ctrlab.training.loop import fit


def run(config: ControlConfig, context: JobContext) -> dict[str, str]:
    """Fine-tune `rounds` times, each from the best of the one before; file and measure the model."""
    original, model, dataset = open_model(context.workspace, config.model_id)
    teacher = model
    if config.redraw_tables:
        model = with_reinitialised_tables(model, config.fit.seed)
    for number in range(config.rounds):
        start, end = 0.9 * number / config.rounds, 0.9 * (number + 1) / config.rounds
        model = fit(
            model,
            dataset,
            config.fit,
            on_step=report_fit(context, start, end, f"fine-tuning, round {number + 1}"),
            should_stop=context.should_stop,
            checkpoint_path=context.folder / f"fit-{number}.safetensors",
            teacher=teacher,
        ).model
    artifact = file_model(
        context,
        model,
        role="control",
        name=config.name or f"{original.name}, fine-tuned alone",
        parents=[original.id],
        config={
            "dataset_id": original.config["dataset_id"],
            "architecture": original.config["architecture"],
            "model": original.config["model"],
            "original_id": original.id,
            "control": {"fit": config.fit.to_dict(), "rounds": config.rounds, "redraw_tables": config.redraw_tables},
        },
        summary={},
        seed=config.fit.seed,
    )
    measure_and_file(context, [artifact.id], start=0.92)
    return {"model": artifact.id}
