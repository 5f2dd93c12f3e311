"""Where a job runs: the interface that the supervisor needs, and one implementation a file."""

import signal
from typing import Protocol

from ctrlab.storage import Job


class Executor(Protocol):
    """A place that is warmed up ahead and then runs one job. Its worker starts it, watches it and ends it."""

    @property
    def name(self) -> str:
        """What the log calls it, such as "process 4711"."""

    def give(self, job: Job) -> bool:
        """Pass it the job to run; False when it has ended already."""

    def exit_code(self) -> int | None:
        """None while it runs; -n when signal n ended it."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and to everything that it started."""

    def end(self) -> None:
        """End it and everything that it started, and wait for that."""


class StartExecutor(Protocol):
    """Starts an executor. background: it warms up only while the processor is idle, for other jobs are running."""

    def __call__(self, *, background: bool) -> Executor: ...
