"""The worker's loop: keep a warm child ready, give it the next job, watch over those that run.

Nothing here runs a handler, so the loop always turns: a hanging or crashing job can be stopped and is never mistaken for
a dead worker.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ctrlab.errors import StorageError
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Job
from ctrlab.storage.jobs import Pulse
from ctrlab.worker.process import ChildProcess, usable_processors

_TICK_SECONDS = 0.1
_BEAT_SECONDS = 2.0
#: A cancelled handler has this long to stop by itself, then a little longer after SIGTERM: two seconds in all.
_POLITE_SECONDS = 1.0
_TERMINATE_SECONDS = 0.4
#: A child whose job ended, or was taken away, has this long to leave.
_LEAVE_SECONDS = 5.0
#: Before another child is started when one died while it warmed up.
_RESTART_SECONDS = 2.0
_STORE_AWAY_SECONDS = 1.0

EndReason = Literal["stopped", "idle"]
logger = logging.getLogger("ctrlab.worker")


@dataclass
class _Running:
    """A job and its child. stop_at: when (monotonic) the child was first seen to have to stop."""

    job: Job
    child: ChildProcess
    cancelled: bool = False
    stop_at: float | None = None


class Supervisor:
    """One worker's life, under one worker id."""

    def __init__(
        self,
        workspace: Workspace,
        modules: Sequence[str],
        concurrency: int,
        idle_exit_seconds: float | None,
        stop: threading.Event,
    ) -> None:
        self._workspace = workspace
        self._store = workspace.store
        self._modules = modules
        self._concurrency = concurrency
        self._idle_exit_seconds = idle_exit_seconds
        self._stop = stop
        self._threads = max(1, usable_processors() // concurrency)
        self._worker_id = self._store.workers.new_id()
        self._running: list[_Running] = []
        self._warm: ChildProcess | None = None
        self._no_child_before = 0.0
        self._beaten = -_BEAT_SECONDS
        self._busy = time.monotonic()

    def run(self) -> EndReason:
        """Work until told to stop, or until there was nothing to do for `idle_exit_seconds`."""
        self._lock = self._store.workers.hold(self._worker_id)
        logger.info("worker %s started", self._worker_id)
        try:
            while not self._stop.is_set():
                self._turn()
                if self._is_idle():
                    return "idle"
            return "stopped"
        finally:
            self._leave()
            self._lock.release()
            logger.info("worker %s ended", self._worker_id)

    def _turn(self) -> None:
        try:
            self._beat()
            self._watch()
            self._warm_up()
            self._take()
            self._stop.wait(_TICK_SECONDS)
        except (StorageError, OSError) as error:  # a child cannot start in a home that has just been removed
            logger.warning("%s", error)
            self._stop.wait(_STORE_AWAY_SECONDS)
        if not self._lock.path.exists():  # somebody removed the home folder, perhaps made another in its place
            logger.warning("%s is gone", self._workspace.home)
            self._stop.set()

    def _beat(self) -> None:
        if time.monotonic() - self._beaten < _BEAT_SECONDS:
            return
        self._store.workers.beat(self._worker_id, os.getpid())
        self._store.jobs.heartbeat([running.job for running in self._running])
        for job in self._store.jobs.reap_expired():
            logger.info("%s lost its worker and is now %s", job.id, job.state)
        self._store.workers.forget_dead()
        self._beaten = time.monotonic()

    def _warm_up(self) -> None:
        if self._warm is not None and self._warm.exit_code() is not None:
            logger.warning("child %d ended with code %s before it had a job", self._warm.pid, self._warm.exit_code())
            self._warm.end()
            self._warm = None
            self._no_child_before = time.monotonic() + _RESTART_SECONDS
        if self._warm is None and time.monotonic() >= self._no_child_before:
            self._warm = ChildProcess(self._workspace, self._modules, threads=self._threads, background=bool(self._running))

    def _take(self) -> None:
        if self._warm is None or len(self._running) >= self._concurrency:
            return
        job = self._store.jobs.claim(self._worker_id)
        if job is None:
            return
        child, self._warm = self._warm, None
        if not child.give(job):
            child.end()
            self._store.jobs.release(job)
            return
        logger.info("%s (%s) runs in process %d, attempt %d", job.id, job.title, child.pid, job.attempts)
        self._running.append(_Running(job, child))

    def _watch(self) -> None:
        if not self._running:
            return
        self._busy = time.monotonic()
        news = self._store.jobs.watch([running.job for running in self._running])
        for running in list(self._running):
            code = running.child.exit_code()
            if code is None:
                self._stop_if_due(running, news[running.job.id])
            else:
                self._running.remove(running)
                running.child.end()  # what it started may still run
                self._record_death(running, code)

    def _stop_if_due(self, running: _Running, pulse: Pulse) -> None:
        """Ask, then insist: the child hears of a cancel by itself and should have stopped before this does anything."""
        if pulse.owned and not pulse.cancel_requested:
            return
        now = time.monotonic()
        running.cancelled = running.cancelled or pulse.cancel_requested
        running.stop_at = running.stop_at or now
        patience = _POLITE_SECONDS if pulse.owned else _LEAVE_SECONDS
        if now - running.stop_at > patience + _TERMINATE_SECONDS:
            running.child.signal(signal.SIGKILL)
        elif now - running.stop_at > patience:
            running.child.signal(signal.SIGTERM)

    def _record_death(self, running: _Running, code: int) -> None:
        """End the job of a dead child; a child that recorded the end itself leaves nothing to do here."""
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
        return limit is not None and not self._running and time.monotonic() - self._busy > limit

    def _leave(self) -> None:
        """Stop every child, give their jobs back to the queue, and take the name off the roster."""
        if self._warm is not None:
            self._warm.end()
        for running in self._running:
            running.child.end()
        try:
            for running in self._running:
                self._store.jobs.release(running.job)
            self._store.workers.forget(self._worker_id)
        except StorageError as error:
            logger.warning("%s", error)  # the next worker sees that this one is gone


def _killed(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"its process was killed ({name}), often for want of memory; retry to continue from the last checkpoint"
