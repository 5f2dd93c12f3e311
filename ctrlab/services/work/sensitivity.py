"""The `sensitivity` job."""

from ctrlab.decomposition.spectrum import load_spectra
from ctrlab.measuring.probe import Probe
from ctrlab.measuring.sensitivity_probe import measure_sensitivity
from ctrlab.plans.sensitivity import has_sensitivity, load_sensitivity, save_sensitivity
from ctrlab.services.handlers import JobContext
from ctrlab.services.sensitivity import SensitivityConfig
from ctrlab.services.work.shared import open_model, stage_folder
from ctrlab.storage import Artifact, NewArtifact


def run(config: SensitivityConfig, context: JobContext) -> dict[str, str]:
    """Truncate every layer alone, rank by rank."""
    return {"sensitivity": measure_and_file(config, context).id}


def measure_and_file(config: SensitivityConfig, context: JobContext, start: float = 0.0, end: float = 1.0) -> Artifact:
    """Measure a model's sensitivity and file it; progress runs from `start` to `end`."""
    artifact, model, dataset = open_model(context.workspace, config.model_id)
    spectra = load_spectra(context.workspace.store.artifacts.get(config.spectra_id).path, eigenvectors=True)
    context.report(start, "measuring the original")
    probe = Probe(model, spectra, dataset.split("valid"), max_rows=config.max_rows)
    folder = stage_folder(context, f"sensitivity-{config.model_id}")
    known = load_sensitivity(folder).layers if has_sensitivity(folder) else {}
    found = measure_sensitivity(
        probe,
        known=known,
        on_layer=lambda so_far: save_sensitivity(folder, so_far),  # a killed job goes on behind the last layer
        on_progress=lambda fraction, message: context.report(start + (end - start) * fraction, message),
        should_stop=context.should_stop,
    )
    save_sensitivity(folder, found)
    return context.add_artifact(
        NewArtifact(
            "sensitivity",
            f"Sensitivity of {artifact.name}",
            parents=[artifact.id, config.spectra_id],
            config=config.to_dict(),
            summary={"num_layers": len(found.layers), "num_rows": found.num_rows, "auc": found.auc, "log_loss": found.log_loss},
            files_from=folder,
        )
    )
