"""Registry of job kinds, and the context that a job's handler gets.

A kind is registered beside the service that submits it. Its config class loads without torch; its handler is named by an import
path that only the process of the job resolves:

    @JOB_HANDLERS.register("spectra", builder="ctrlab.services.work.spectra:run", title="Spectra")
    class SpectraConfig(Config): ...

    def run(config: SpectraConfig, context: JobContext) -> dict[str, str]:  # kind of artifact -> artifact id

The store holds kinds and settings only. A kind's code is decided by its registration, never by a row of the store.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from ctrlab.config import Config
from ctrlab.errors import JobCancelled, StoreUnavailableError
from ctrlab.registry import ConfigRegistry
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, Job, MetricRow, NewArtifact

_T = TypeVar("_T")

JOB_HANDLERS: ConfigRegistry[Config] = ConfigRegistry("kind of job")

#: The modules that register this project's own kinds of job.
HANDLER_MODULES = (
    "ctrlab.services.datasets",
    "ctrlab.services.models",
    "ctrlab.services.outside",
    "ctrlab.services.spectra",
    "ctrlab.services.sensitivity",
    "ctrlab.services.speed",
    "ctrlab.services.compression",
    "ctrlab.services.comparison",
    "ctrlab.services.timing",
    "ctrlab.services.segments",
    "ctrlab.services.serving",
    "ctrlab.services.bundles",
    "ctrlab.services.scores",
    "ctrlab.services.controls",
    "ctrlab.services.shrink",
    "ctrlab.services.sample",
)

#: Kinds of job that wait for all others, and that go back to the queue for them; they keep what they have done.
GIVING_WAY = ("sensitivity",)

#: Progress and time before the first estimate of the time left; earlier ones vary too much.
_MIN_FRACTION_FOR_ETA = 0.01
_MIN_SECONDS_FOR_ETA = 0.5
#: Between two attempts to write to a store that is locked or away.
_STORE_RETRY_SECONDS = 1.0


class Progress(NamedTuple):
    """The latest report of a handler."""

    fraction: float
    message: str
    eta_seconds: float | None


class JobContext:
    """A handler's access to the workspace, its checkpoint folder, progress reports, curves, the log and the cancel flag.

    Reports are kept in memory and written a few times a second by the runner. All methods may be called from any thread.
    clock: seconds of a monotonic clock, for the estimate of the time left.
    """

    def __init__(
        self,
        workspace: Workspace,
        job: Job,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workspace = workspace
        self.job = job
        self._should_stop = should_stop
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: Progress | None = None
        self._points: list[MetricRow] = []
        self._first: tuple[float, float] | None = None  # (fraction, time) of this attempt's first report
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def folder(self) -> Path:
        """Folder for checkpoints and unfinished files: removed when the job succeeds, kept otherwise."""
        return self.job.checkpoint_folder

    def report(self, fraction: float, message: str = "", eta_seconds: float | None = None) -> None:
        """Set the progress, 0 to 1; the time left is estimated from the pace unless `eta_seconds` is given."""
        fraction = min(max(float(fraction), 0.0), 1.0)
        with self._lock:
            eta = self._estimate(fraction) if eta_seconds is None else float(eta_seconds)
            self._latest = Progress(fraction, message, eta)

    def metric(self, step: int, **values: float | None) -> None:
        """Add a point to the named curves; None values are left out."""
        with self._lock:
            self._points += [MetricRow(int(step), name, float(value)) for name, value in values.items() if value is not None]

    def should_stop(self) -> bool:
        """Whether the job was cancelled; a handler polls this often and then raises JobCancelled."""
        return self._should_stop()

    def stop_if_requested(self) -> None:
        """Raise JobCancelled when the job was cancelled."""
        if self.should_stop():
            raise JobCancelled("the job was cancelled")

    def log(self, text: str) -> None:
        """Append a line, with the time, to the job's log; on a full disk the line is lost and the job goes on."""
        with contextlib.suppress(OSError), self.job.log_path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n")

    def add_artifact(self, new: NewArtifact, *, key: str | None = None) -> Artifact:
        """`store.artifacts.add`, once per job and `key`: a job killed after this and resumed does not add it again.

        A store that is locked or cannot be reached is retried until the job is cancelled.
        """

        def add() -> Artifact:
            self.stop_if_requested()
            return self.workspace.store.artifacts.add(new, job_id=self.job.id, job_key=key)

        return self.until_stored(add)

    def until_stored(self, write: Callable[[], _T]) -> _T:
        """Call `write` until it raises no StoreUnavailableError; its result."""
        waiting = False
        while True:
            try:
                return write()
            except StoreUnavailableError as error:
                if not self.job.folder.exists():  # the home itself was removed
                    raise
                if not waiting:  # one line an outage
                    self.log(f"the store could not be written, trying again until it can: {error}")
                waiting = True
                time.sleep(_STORE_RETRY_SECONDS)

    def drain(self) -> tuple[Progress | None, list[MetricRow]]:
        """For the runner: the reports since the last call."""
        with self._lock:
            latest, points = self._latest, self._points
            self._latest, self._points = None, []
        return latest, points

    def restore(self, latest: Progress | None, points: list[MetricRow]) -> None:
        """For the runner: put back reports that could not be written; newer ones take precedence."""
        with self._lock:
            self._latest = self._latest or latest
            self._points = points + self._points

    def _estimate(self, fraction: float) -> float | None:
        now = self._clock()
        if self._first is None:
            self._first = (fraction, now)
        done, seconds = fraction - self._first[0], now - self._first[1]
        if done < _MIN_FRACTION_FOR_ETA or seconds < _MIN_SECONDS_FOR_ETA:
            return None
        return (1.0 - fraction) * seconds / done
