"""The `spectra` job."""

from ctrlab.decomposition.collect import collect_spectra
from ctrlab.decomposition.spectrum import save_spectra
from ctrlab.services.capabilities import is_outside
from ctrlab.services.handlers import JobContext
from ctrlab.services.spectra import SpectraConfig
from ctrlab.services.work import outside
from ctrlab.services.work.shared import open_model
from ctrlab.storage import Artifact, NewArtifact


def run(config: SpectraConfig, context: JobContext) -> dict[str, str]:
    """Decompose every layer's outputs and every table."""
    return {"spectra": decompose_and_file(config, context).id}


def decompose_and_file(config: SpectraConfig, context: JobContext, start: float = 0.0, end: float = 1.0) -> Artifact:
    """Collect a model's spectra and file them; progress runs from `start` to `end`."""
    stored = context.workspace.store.artifacts.get(config.model_id)
    if is_outside(stored):
        return outside.decompose(config, context, stored)
    artifact, model, dataset = open_model(context.workspace, config.model_id)
    found = collect_spectra(
        model,
        dataset,
        split=config.split,
        max_rows=config.max_rows,
        tolerance=config.tolerance,
        loss_gradients=config.loss_gradients,
        on_progress=lambda fraction, message: context.report(start + (end - start) * fraction, message),
        should_stop=context.should_stop,
    )
    folder = context.folder / "spectra"
    save_spectra(folder, found)
    seen = [spectrum.num_samples for spectrum in found.values() if spectrum.kind == "linear"]
    rows = min(seen, default=0)
    summary = {"num_layers": len(found), "calibration_rows": rows, "split": config.split}
    return context.add_artifact(
        NewArtifact(
            "spectra",
            f"Spectra of {artifact.name}",
            parents=[artifact.id],
            config=config.to_dict(),
            summary=summary,
            files_from=folder,
        )
    )
