"""Bundles: raw rows to probabilities in one folder. Queue one, find it, pack it."""

from dataclasses import dataclass

from ctrlab.config import Config, option
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.of_model import submit_for_model
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact

#: Inside a bundle's artifact.
BUNDLE_FOLDER = "bundle"
#: Inside that folder: what makes it a bundle.
BUNDLE_MANIFEST = "bundle.json"


@JOB_HANDLERS.register(
    "bundle",
    builder="ctrlab.services.work.bundle:run",
    title="Bundle for serving",
    description="Encoder and model in one ONNX file that reads raw rows, checked row by row against the model.",
)
@dataclass(frozen=True, kw_only=True)
class BundleConfig(Config):
    """Which model to bundle, and in which form."""

    model_id: str
    form: str = option(
        "float",
        choices={"float": "Float", "integers": "Integers"},
        help="integers: tables are bytes and layers multiply bytes; refused where the answers would be others.",
    )
    calibrate: bool = option(
        False, label="Calibrate probabilities", help="Fit scale and intercept of the logit on the validation rows."
    )


def submit_bundle(workspace: Workspace, config: BundleConfig) -> str:
    """Queue the bundle; the job's result holds its id, `bundle`."""
    return submit_for_model(workspace, "bundle", "Bundle of {model}", config)


def latest_bundle(workspace: Workspace, model_id: str, config: BundleConfig | None = None) -> Artifact | None:
    """The newest bundle of a model, or the newest with these settings; None where there is none."""
    made = workspace.store.artifacts.list(kind="bundle", parent=model_id)
    return next((one for one in made if config is None or one.config == config.to_dict()), None)
