"""Speed: time models together in one job, and the ratio of two of them, or why there is none.

A ratio is made of timings of one job alone: those of different jobs differ by the machine's load as much as models do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctrlab.config import Config, option
from ctrlab.evaluation.speed_ratio import SpeedRatio, ratio_of_rounds
from ctrlab.reports.comparison import LATENCY_BATCH_SIZES, RUNTIMES, SPEED_BATCH
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.models import require_artifact
from ctrlab.services.outside import abilities
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact

NOT_TOGETHER = "the two were not timed in one job"


@JOB_HANDLERS.register(
    "time", builder="ctrlab.services.work.timing:run", title="Time", description="Speed of models, timed together in turns."
)
@dataclass(frozen=True, kw_only=True)
class TimeConfig(Config):
    """Which models to time together; those that were never measured are measured first."""

    model_ids: tuple[str, ...]
    batch_sizes: tuple[int, ...] = option(LATENCY_BATCH_SIZES, minimum=1, maximum=1 << 20, help="Batch sizes to time.")
    seconds_per_timing: float = option(
        0.4, minimum=0.05, maximum=60.0, advanced=True, unit="s", help="Time spent on each timing."
    )
    threads: int | None = option(None, minimum=1, maximum=256, advanced=True, help="Empty for all cores.")


def submit_timing(workspace: Workspace, config: TimeConfig) -> str:
    """Queue the timing of models together; the job's result lists the new `timings`.

    Raises:
        ConfigError: one of the models cannot be timed; the sentence says why.
    """
    models = [require_artifact(workspace, model_id, "model") for model_id in config.model_ids]
    for model in models:
        abilities(workspace, model).require("time")
    names = [model.name for model in models]
    return workspace.store.jobs.submit("time", f"Time {', '.join(names)}", config.to_dict()).id


def speed_ratio(
    workspace: Workspace, model_id: str, reference_id: str, *, runtime: str = "torch", batch_size: int = SPEED_BATCH
) -> SpeedRatio:
    """How many times as fast a model is as a reference, by the newest job that timed both, or the `reason` for no verdict.

    Args:
        runtime: "torch" or "onnx".
    """
    return ratio_in(timings_of(workspace, model_id), model_id, reference_id, runtime=runtime, batch_size=batch_size)


def timings_of(workspace: Workspace, model_id: str) -> list[Artifact]:
    """The timings that a model was in, newest first."""
    return workspace.store.artifacts.list(kind="timing", parent=model_id)


def ratio_in(timings: Sequence[Artifact], model_id: str, reference_id: str, *, runtime: str, batch_size: int) -> SpeedRatio:
    """`speed_ratio` by the first of the timings that has both models."""
    for timing in timings:
        model, reference = (_of_model(timing, runtime, own, batch_size) for own in (model_id, reference_id))
        if model and reference:
            return ratio_of_rounds(model, reference, batch_size=batch_size, runtime=runtime)
    return SpeedRatio(batch_size=batch_size, runtime=runtime, reason=NOT_TOGETHER)


def latencies_in(timings: Sequence[Artifact], model_id: str, together_with: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{runtime: {batch size as text: a `Latency` as a dictionary}} of a model, by the first timing; empty if there is none.

    together_with: a timing of all of these models is preferred, so that the lines of a table are of one job.
    """
    whole = [timing for timing in timings if set(together_with) <= set(timing.parents)]
    for timing in (*whole, *timings):
        return {runtime: timing.summary["latency"].get(runtime, {}).get(model_id, {}) for runtime in RUNTIMES}
    return {}


def timed_together(workspace: Workspace, model_ids: list[str]) -> bool:
    """Whether the first of the models was timed with each of the others."""
    first, *others = dict.fromkeys(model_ids)
    return {first, *others} <= set().union(*(timing.parents for timing in timings_of(workspace, first)))


def _of_model(timing: Artifact, runtime: str, model_id: str, batch_size: int) -> dict[str, Any]:
    found: dict[str, Any] = timing.summary["latency"].get(runtime, {}).get(model_id, {}).get(str(batch_size), {})
    return found
