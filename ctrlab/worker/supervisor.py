"""The worker's loop: keep a warm executor ready, pass it the next job, watch those that run.

No handler runs in this process, so the loop never blocks: a hanging or crashing job can be stopped and is never mistaken for a
dead worker.
"""

import logging
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import Literal

from ctrlab.errors import StorageError
from ctrlab.services.handlers import GIVING_WAY
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Job
from ctrlab.storage.jobs import Lease
from ctrlab.worker.executors import Executor, StartExecutor

_TICK_SECONDS = 0.1
_HEARTBEAT_SECONDS = 2.0
#: A cancelled handler has this long to stop by itself, then a little longer after SIGTERM: two seconds in all.
_GRACE_SECONDS = 1.0
_TERMINATE_SECONDS = 0.4
#: An executor whose job ended, or was given to another worker, has this long to exit.
_EXIT_SECONDS = 5.0
#: Before another executor is started when one ended while it warmed up.
_RESTART_SECONDS = 2.0
_STORE_RETRY_SECONDS = 1.0

EndReason = Literal["stopped", "idle"]
logger = logging.getLogger("ctrlab.worker")


@dataclass
class _Running:
    """A job and its executor. stop_at: when (monotonic) the supervisor first saw that it has to stop."""

    job: Job
    executor: Executor
    cancelled: bool = False
    stop_at: float | None = None


class Supervisor:
    """A worker from its registration to its end, under one worker id."""

    def __init__(
        self,
        workspace: Workspace,
        start: StartExecutor,
        concurrency: int,
        idle_exit_seconds: float | None,
        stop: threading.Event,
    ) -> None:
        """Nothing is started yet.

        Args:
            workspace: whose jobs to run.
            start: starts an executor for one job.
            concurrency: how many jobs run at once.
            idle_exit_seconds: stop after this long without a job; None never stops.
            stop: set from outside to end the loop.
        """
        self._workspace = workspace
        self._store = workspace.store
        self._start = start
        self._concurrency = concurrency
        self._idle_exit_seconds = idle_exit_seconds
        self._stop = stop
        self._worker_id = self._store.workers.new_id()
        self._running: list[_Running] = []
        self._warm: Executor | None = None
        self._no_start_before = 0.0
        self._last_heartbeat = -_HEARTBEAT_SECONDS
        self._last_busy = time.monotonic()

    def run(self) -> EndReason:
        """Run jobs until `stop` is set, or until there was none for `idle_exit_seconds`; why it ended."""
        self._lock = self._store.workers.hold(self._worker_id)
        logger.info("worker %s started", self._worker_id)
        try:
            while not self._stop.is_set():
                self._step()
                if self._is_idle():
                    return "idle"
            return "stopped"
        finally:
            self._shut_down()
            self._lock.release()
            logger.info("worker %s ended", self._worker_id)

    def _step(self) -> None:
        try:
            self._send_heartbeat()
            self._watch()
            self._give_way()
            self._warm_up()
            self._claim()
            self._stop.wait(_TICK_SECONDS)
        except (StorageError, OSError) as error:  # also: an executor cannot start in a home that has just been removed
            logger.warning("%s", error)
            self._stop.wait(_STORE_RETRY_SECONDS)
        if not self._lock.path.exists():  # the home folder was removed, and perhaps created anew
            logger.warning("%s was removed", self._workspace.home)
            self._stop.set()

    def _send_heartbeat(self) -> None:
        if time.monotonic() - self._last_heartbeat < _HEARTBEAT_SECONDS:
            return
        self._store.workers.heartbeat(self._worker_id, os.getpid())
        self._store.jobs.heartbeat([running.job for running in self._running])
        for job in self._store.jobs.reap_expired():
            logger.info("%s lost its worker and is now %s", job.id, job.state)
        self._store.workers.forget_dead()
        self._last_heartbeat = time.monotonic()

    def _warm_up(self) -> None:
        if self._warm is not None and self._warm.exit_code() is not None:
            logger.warning("%s ended with code %s before it had a job", self._warm.name, self._warm.exit_code())
            self._warm.end()
            self._warm = None
            self._no_start_before = time.monotonic() + _RESTART_SECONDS
        if self._warm is None and time.monotonic() >= self._no_start_before:
            self._warm = self._start(background=bool(self._running))

    def _claim(self) -> None:
        if self._warm is None or len(self._running) >= self._concurrency:
            return
        job = self._store.jobs.claim(self._worker_id, giving_way=GIVING_WAY)
        if job is None:
            return
        executor, self._warm = self._warm, None
        if not executor.give(job):
            executor.end()
            self._store.jobs.release(job)
            return
        logger.info("%s (%s) runs in %s, attempt %d", job.id, job.title, executor.name, job.attempts)
        self._running.append(_Running(job, executor))

    def _watch(self) -> None:
        if not self._running:
            return
        self._last_busy = time.monotonic()
        leases = self._store.jobs.watch([running.job for running in self._running])
        for running in list(self._running):
            code = running.executor.exit_code()
            if code is None:
                self._stop_if_due(running, leases[running.job.id])
            else:
                self._record_end(running, code)  # a store that is away raises here, and this is tried again
                self._running.remove(running)
                running.executor.end()  # what it started may still run

    def _give_way(self) -> None:
        """Put a job that gives way back into the queue when another waits and there is no place for it."""
        giving = [running for running in self._running if running.job.kind in GIVING_WAY]
        if not giving or len(self._running) < self._concurrency or self._warm is None:
            return
        if not self._store.jobs.any_queued(without=GIVING_WAY):
            return
        running = giving[-1]
        self._running.remove(running)
        running.executor.end()
        self._store.jobs.release(running.job)
        logger.info("%s (%s) gives way to a job that waits", running.job.id, running.job.title)

    def _stop_if_due(self, running: _Running, lease: Lease) -> None:
        """Terminate, then kill, a job that was cancelled or lost; its handler polls the same flag and should have stopped."""
        if lease.owned and not lease.cancel_requested:
            return
        now = time.monotonic()
        running.cancelled = running.cancelled or lease.cancel_requested
        running.stop_at = running.stop_at or now
        grace = _GRACE_SECONDS if lease.owned else _EXIT_SECONDS
        if now - running.stop_at > grace + _TERMINATE_SECONDS:
            running.executor.signal(signal.SIGKILL)
        elif now - running.stop_at > grace:
            running.executor.signal(signal.SIGTERM)

    def _record_end(self, running: _Running, code: int) -> None:
        """Record the end of a job whose executor has ended, unless the job's own process recorded it."""
        job, jobs = running.job, self._store.jobs
        if running.cancelled:
            ended = jobs.finish(job, "cancelled", message="cancelled")
        elif code < 0:
            ended = jobs.finish(job, "interrupted", error=_killed(-code), error_expected=True, message="interrupted")
        else:
            error = f"unexpected: its process ended with code {code} and without a result, see the log"
            ended = jobs.finish(job, "failed", error=error, message="failed")
        state = jobs.get(job.id).state
        logger.info("%s is %s; its process ended with code %d%s", job.id, state, code, "" if ended else " after recording it")

    def _is_idle(self) -> bool:
        limit = self._idle_exit_seconds
        return limit is not None and not self._running and time.monotonic() - self._last_busy > limit

    def _shut_down(self) -> None:
        """End every executor, put their jobs back into the queue, and remove this worker from the registry."""
        if self._warm is not None:
            self._warm.end()
        for running in self._running:
            running.executor.end()
        try:
            for running in self._running:
                self._store.jobs.release(running.job)
            self._store.workers.forget(self._worker_id)
        except StorageError as error:
            logger.warning("%s", error)  # the next worker finds this one dead and does the rest


def _killed(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"its process was killed ({name}), often because memory ran out; retry to continue from the last checkpoint"
