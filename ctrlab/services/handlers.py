"""The kinds of job, and what a job's handler is given.

A kind is registered beside the service that submits it; its config class loads without torch and its handler is named
by an import path that only the worker follows:

    @JOB_HANDLERS.register("spectra", builder="ctrlab.services.work.spectra:run", title="Spectra")
    class SpectraConfig(Config): ...

    def run(config: SpectraConfig, context: JobContext) -> dict[str, str]:  # kind of artifact -> artifact id

The store holds kinds and settings only. What code a kind runs is decided here, never by a row of the store.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ctrlab.config import Config
from ctrlab.errors import JobCancelled
from ctrlab.registry import ConfigRegistry
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, Job, MetricRow, NewArtifact

JOB_HANDLERS: ConfigRegistry[Config] = ConfigRegistry("kind of job")

#: The modules that register this project's own kinds of job.
HANDLER_MODULES = (
    "ctrlab.services.datasets",
    "ctrlab.services.models",
    "ctrlab.services.spectra",
    "ctrlab.services.sensitivity",
    "ctrlab.services.speed",
    "ctrlab.services.compression",
    "ctrlab.services.comparison",
    "ctrlab.services.controls",
    "ctrlab.services.sample",
)

#: Progress and time before the first guess of what is left; earlier guesses jump about.
_MIN_FRACTION_FOR_ETA = 0.01
_MIN_SECONDS_FOR_ETA = 0.5


class Progress(NamedTuple):
    """The latest thing a handler reported."""

    fraction: float
    message: str
    eta_seconds: float | None


class JobContext:
    """What a handler has besides its config: the workspace, a folder for checkpoints, and ways to report and to be stopped.

    Reports cost nothing: they are kept in memory and written a few times a second by the runner. All methods may be called
    from any thread.
    """

    def __init__(self, workspace: Workspace, job: Job, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.workspace = workspace
        self.job = job
        self._asked_to_stop = should_stop
        self._lock = threading.Lock()
        self._latest: Progress | None = None
        self._points: list[MetricRow] = []
        self._first: tuple[float, float] | None = None  # (fraction, time) of this attempt's first report
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def folder(self) -> Path:
        """For checkpoints and half-made files: kept when the job is killed, cancelled or fails, emptied when it succeeds."""
        return self.job.checkpoint_folder

    def report(self, fraction: float, message: str = "", eta_seconds: float | None = None) -> None:
        """Say how far the job is, 0 to 1; what is left is estimated from the pace unless `eta_seconds` is given."""
        fraction = min(max(float(fraction), 0.0), 1.0)
        with self._lock:
            eta = self._estimate(fraction) if eta_seconds is None else float(eta_seconds)
            self._latest = Progress(fraction, message, eta)

    def metric(self, step: int, **values: float | None) -> None:
        """Add a point to the named curves; None values are left out."""
        with self._lock:
            self._points += [MetricRow(int(step), name, float(value)) for name, value in values.items() if value is not None]

    def should_stop(self) -> bool:
        """Whether the job was cancelled; a handler looks often and then raises JobCancelled."""
        return self._asked_to_stop()

    def stop_if_asked(self) -> None:
        """Raise JobCancelled when the job was cancelled."""
        if self.should_stop():
            raise JobCancelled("the job was cancelled")

    def log(self, text: str) -> None:
        """Write a line, with the time, to the job's log."""
        with self.job.log_path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n")

    def add_artifact(self, new: NewArtifact, *, key: str | None = None) -> Artifact:
        """`store.artifacts.add`, once per job and `key`: a job killed after this and resumed does not add it again."""
        return self.workspace.store.artifacts.add(new, job_id=self.job.id, job_key=key)

    def drain(self) -> tuple[Progress | None, list[MetricRow]]:
        """For the runner: what was reported since the last call."""
        with self._lock:
            latest, points = self._latest, self._points
            self._latest, self._points = None, []
        return latest, points

    def restore(self, latest: Progress | None, points: list[MetricRow]) -> None:
        """For the runner: take back what could not be written; newer reports win."""
        with self._lock:
            self._latest = self._latest or latest
            self._points = points + self._points

    def _estimate(self, fraction: float) -> float | None:
        now = time.monotonic()
        if self._first is None:
            self._first = (fraction, now)
        done, seconds = fraction - self._first[0], now - self._first[1]
        if done < _MIN_FRACTION_FOR_ETA or seconds < _MIN_SECONDS_FOR_ETA:
            return None
        return (1.0 - fraction) * seconds / done
