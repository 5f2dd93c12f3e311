"""Compression: queue AFM with its fine-tuning. The prediction next to the sliders is `ctrlab.plans.cost_prediction.predict`."""

from dataclasses import dataclass

from ctrlab.config import Config, option
from ctrlab.errors import ConfigError
from ctrlab.figures.text import times
from ctrlab.plans.configs import CompressConfig
from ctrlab.plans.cost_prediction import predict
from ctrlab.plans.methods import METHODS
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.models import model_profile, require_artifact
from ctrlab.services.of_model import submit_for_model
from ctrlab.services.outside import abilities
from ctrlab.services.workspace import Workspace
from ctrlab.training.batch_norm import one_row_fault


@JOB_HANDLERS.register(
    "compress", builder="ctrlab.services.work.compress:run", title="Compress", description="Low-rank factors, then fine-tuning."
)
@dataclass(frozen=True, kw_only=True)
class CompressJobConfig(Config):
    """Which model, by which spectra, to which ranks."""

    model_id: str
    spectra_id: str
    compress: CompressConfig
    name: str = option("", help="Shown in lists; empty for a name made from method and size.")
    is_control: bool = option(False, help="A control arm of another run.")
    measure: bool = option(True, help="Also measure accuracy, size and speed of the original and the compressed model.")


def submit_compress(workspace: Workspace, config: CompressJobConfig) -> str:
    """Queue the compression; the job's result holds the new `model` id.

    Raises:
        ConfigError: the model is from outside and allows no such setting; or the fine-tuning has batches of one row and the
            model batch normalisation.
    """
    model, tuning = require_artifact(workspace, config.model_id, "model"), config.compress.finetune
    abilities(workspace, model).check(config.compress)
    normalises = model.config.get("model", {}).get("batch_norm", False)
    if tuning is not None and normalises and (fault := one_row_fault(None, tuning)):
        raise ConfigError(fault)
    return submit_for_model(workspace, "compress", "Compress {model}", config, needs=("spectra",))


def compressed_name(workspace: Workspace, config: CompressJobConfig) -> str:
    """The name of a result that gets none: "DeepFM on Avazu, AFM 5.0x", the factor being that of the bytes it is served with."""
    original = require_artifact(workspace, config.model_id, "model")
    cost = predict(model_profile(workspace, original.id), None, config.compress.spec)
    factor = cost.serving_original.size_bytes / max(cost.serving.size_bytes, 1)
    return f"{original.name}, {METHODS[config.compress.method].title} {times(factor)}"
