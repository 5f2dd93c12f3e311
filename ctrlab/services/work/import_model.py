"""The `import` job."""

from pathlib import Path

from ctrlab.models.checkpoint import load_model
from ctrlab.models.configs import MODELS
from ctrlab.services.handlers import JobContext
from ctrlab.services.models import ImportConfig
from ctrlab.services.paths import input_path
from ctrlab.services.work.evaluate import measure_and_file
from ctrlab.services.work.shared import file_model, open_dataset


def run(config: ImportConfig, context: JobContext) -> dict[str, str]:
    """Load the checkpoint against the dataset's schema, file and measure it."""
    dataset = open_dataset(context.workspace, config.dataset_id)
    context.report(0.1, "reading the checkpoint")
    model = load_model(input_path(context.workspace, config.path, uploaded=True), dataset.schema)
    entry = MODELS.entry_for(model.config)
    artifact = file_model(
        context,
        model,
        role="original",
        name=config.name or Path(config.path).stem,
        parents=[config.dataset_id],
        config={
            "dataset_id": config.dataset_id,
            "architecture": entry.name,
            "model": model.config.to_dict(),
            "imported_from": config.path,
        },
        summary={},
        seed=None,
    )
    (evaluation,) = measure_and_file(context, [artifact.id], start=0.4)
    return {"model": artifact.id, "evaluation": evaluation.id}
