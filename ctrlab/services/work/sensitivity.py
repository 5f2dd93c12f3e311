"""The `sensitivity` job."""

from ctrlab.measuring.sensitivity_probe import measure_sensitivity
from ctrlab.plans.sensitivity import has_sensitivity, load_sensitivity, save_sensitivity
from ctrlab.services.handlers import JobContext
from ctrlab.services.sensitivity import SensitivityConfig
from ctrlab.services.work.probes import open_probe
from ctrlab.services.work.shared import stage_folder
from ctrlab.storage import NewArtifact


def run(config: SensitivityConfig, context: JobContext) -> dict[str, str]:
    """Truncate every layer alone, rank by rank, and file what was measured."""
    artifact = context.workspace.store.artifacts.get(config.model_id)
    context.report(0.0, "measuring the original")
    probe = open_probe(context.workspace, config.model_id, config.spectra_id, config.max_rows)
    folder = stage_folder(context, f"sensitivity-{config.model_id}")
    known = load_sensitivity(folder).layers if has_sensitivity(folder) else {}
    found = measure_sensitivity(
        probe,
        known=known,
        on_layer=lambda so_far: save_sensitivity(folder, so_far),  # a killed job resumes after the last layer
        on_progress=context.report,
        should_stop=context.should_stop,
    )
    save_sensitivity(folder, found)
    filed = context.add_artifact(
        NewArtifact(
            "sensitivity",
            f"Sensitivity of {artifact.name}",
            parents=[artifact.id, config.spectra_id],
            config=config.to_dict(),
            summary={"num_layers": len(found.layers), "num_rows": found.num_rows, "auc": found.auc, "log_loss": found.log_loss},
            files_from=folder,
        )
    )
    return {"sensitivity": filed.id}
