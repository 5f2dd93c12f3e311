"""What speaks against stored models: untrained, no better than chance, badly calibrated, measured or decomposed on few rows."""

from collections.abc import Mapping, Sequence

from ctrlab.models.profile import ModelProfile
from ctrlab.reports.training import measurement_doubts, spectra_doubts, training_doubts
from ctrlab.services.of_model import newest_of_models
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact


def model_doubts(workspace: Workspace, model: Artifact) -> tuple[str, ...]:
    """Sentences without a capital and a full stop; empty where nothing speaks against the model."""
    return doubts_of_models(workspace, [model], newest_of_models(workspace, "evaluation", [model.id]))[model.id]


def doubts_of_models(
    workspace: Workspace, models: Sequence[Artifact], evaluations: Mapping[str, Artifact]
) -> dict[str, tuple[str, ...]]:
    """{model id: `model_doubts`}, by one query for all spectra.

    evaluations: {model id: its newest evaluation}.
    """
    spectra = newest_of_models(workspace, "spectra", [model.id for model in models])
    return {model.id: _doubts(model, evaluations.get(model.id), spectra.get(model.id)) for model in models}


def _doubts(model: Artifact, evaluation: Artifact | None, spectra: Artifact | None) -> tuple[str, ...]:
    return (
        *training_doubts(model.summary.get("training")),
        *measurement_doubts(evaluation.summary if evaluation else None),
        *(spectra_doubts(spectra.summary.get("calibration_rows"), _widest(model)) if spectra else ()),
    )


def _widest(model: Artifact) -> int:
    """Outputs of the widest linear layer that can be compressed."""
    layers = ModelProfile.from_dict(model.summary["profile"]).compressible
    return max((layer.out_features for layer in layers if layer.kind == "linear"), default=0)
