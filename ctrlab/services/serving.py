"""Serving: queue the export of a model that multiplies integers, and read what became of it."""

from dataclasses import dataclass

from ctrlab.config import Config, option
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.of_model import newest_of_model, submit_for_model
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact


@JOB_HANDLERS.register(
    "integers",
    builder="ctrlab.services.work.serving:run",
    title="Serving form in integers",
    description="An ONNX file that multiplies integers, checked row by row against the float form.",
)
@dataclass(frozen=True, kw_only=True)
class IntegersConfig(Config):
    """Which model to export, and how far its answers may move from the float form's."""

    model_id: str
    split: str = option("valid", choices=("valid", "test"), label="Check rows", help="Rows on which both forms are compared.")
    max_probability_change: float = option(
        0.05, minimum=0.0, maximum=1.0, help="No form is written where a row's probability moves by more."
    )
    max_auc_loss: float = option(
        0.0005, minimum=0.0, maximum=0.5, help="No form is written where a greater loss of AUC cannot be excluded (95 %)."
    )
    weights: str = option(
        "any",
        choices={"any": "7 bits, for any processor", "vnni": "8 bits, for processors with VNNI"},
        help="any: products are the same on every processor. vnni: a bit finer, and wrong on processors without VNNI.",
    )


def submit_integers(workspace: Workspace, config: IntegersConfig) -> str:
    """Queue the export; the job's result holds the new `serving` id."""
    return submit_for_model(workspace, "integers", "Serving form of {model} in integers", config)


def latest_integers(workspace: Workspace, model_id: str) -> Artifact | None:
    """What became of the newest export in integers of a model; its summary has `refused`, `advice` and the measurements."""
    return newest_of_model(workspace, "serving", model_id)
