"""Speed: time a model's layers at ranks and widths, and find the best plan that runs within so many milliseconds."""

from dataclasses import dataclass

from ctrlab.config import Config, option
from ctrlab.plans.speed import SpeedModel, load_speed
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.models import require_artifact
from ctrlab.services.of_model import submit_for_model
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact

DEFAULT_BATCH_SIZE = 4096


@JOB_HANDLERS.register(
    "speed",
    builder="ctrlab.services.work.speed:run",
    title="Speed",
    description="Milliseconds of layers and tables at a few ranks.",
)
@dataclass(frozen=True, kw_only=True)
class SpeedConfig(Config):
    """Which model to time, truncated by which spectra, at which batch size."""

    model_id: str
    spectra_id: str
    batch_size: int = option(DEFAULT_BATCH_SIZE, minimum=1, maximum=1 << 20, help="Rows of one call.")
    threads: int | None = option(None, minimum=1, maximum=256, advanced=True, help="Empty for all cores.")
    seconds_per_timing: float = option(0.3, minimum=0.02, maximum=60.0, advanced=True, unit="s", help="Spent on each timing.")


@JOB_HANDLERS.register(
    "plan_speed",
    builder="ctrlab.services.work.speed:run_plan",
    title="Plan for milliseconds",
    description="The best ranks within a time, checked by running them.",
)
@dataclass(frozen=True, kw_only=True)
class PlanSpeedConfig(Config):
    """At most `limit_ms` a call, by the speed and the sensitivity measured before; the batch size is that of the speed."""

    model_id: str
    spectra_id: str
    sensitivity_id: str
    speed_id: str
    limit_ms: float = option(minimum=1e-6, unit="ms", help="Of one call.")
    multiple_of: int = option(1, minimum=1, maximum=64, help="Of ranks of linear layers.")


def submit_speed(workspace: Workspace, config: SpeedConfig) -> str:
    """Queue the timing; the job's result holds the new `speed` id."""
    return submit_for_model(workspace, "speed", "Speed of {model}", config, needs=("spectra",))


def submit_plan_speed(workspace: Workspace, config: PlanSpeedConfig) -> str:
    """Queue the search; the job's result holds a `plan` id, whose summary has the predicted and measured latencies."""
    title = f"Plan {{model}} for {config.limit_ms:g} ms"
    return submit_for_model(workspace, "plan_speed", title, config, needs=("spectra", "sensitivity", "speed"))


def latest_speed(workspace: Workspace, model_id: str, batch_size: int | None = None) -> Artifact | None:
    """The newest speed of a model, at this batch size or at any, if it was measured."""
    found = workspace.store.artifacts.list(kind="speed", parent=model_id)
    return next((one for one in found if batch_size in (None, one.summary["batch_size"])), None)


def load_model_speed(workspace: Workspace, speed_id: str) -> SpeedModel:
    """The measured speed of a model."""
    return load_speed(require_artifact(workspace, speed_id, "speed").path)
