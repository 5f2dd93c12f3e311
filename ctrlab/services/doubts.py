"""What speaks against a stored model: untrained, no better than chance, badly calibrated, measured or decomposed on few rows."""

from ctrlab.reports.training import measurement_doubts, spectra_doubts, training_doubts
from ctrlab.services.comparison import latest_evaluation
from ctrlab.services.models import model_profile
from ctrlab.services.spectra import latest_spectra
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact


def model_doubts(workspace: Workspace, model: Artifact) -> tuple[str, ...]:
    """Sentences without a capital and a full stop; empty where nothing speaks against the model."""
    evaluation, spectra = latest_evaluation(workspace, model.id), latest_spectra(workspace, model.id)
    rows = spectra.summary.get("calibration_rows") if spectra else None
    widths = [layer.out_features for layer in model_profile(workspace, model.id).compressible if layer.kind == "linear"]
    return (
        *training_doubts(model.summary.get("training")),
        *measurement_doubts(evaluation.summary if evaluation else None),
        *spectra_doubts(rows, max(widths, default=0)),
    )
