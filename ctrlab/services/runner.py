"""Runs one job's handler in this process and records the outcome. Used by the worker's child and the command line."""

import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from ctrlab.errors import CtrlabError, JobCancelled, StorageError
from ctrlab.services.handlers import JOB_HANDLERS, JobContext
from ctrlab.services.jobs import cancel_job, get_job
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Job
from ctrlab.storage.jobs import EndState
from ctrlab.storage.locks import FileLock

#: Between two polls of the cancel flag, and two writes of progress.
POLL_SECONDS = 0.2
_LEASE_RENEWAL_SECONDS = 3.0
#: How long to wait for the process of an earlier attempt, whose worker died, to release the job's folder.
_FOLDER_SECONDS = 20.0

ShouldStop = Callable[[], bool]
OnChange = Callable[[Job], None]


def run_job(workspace: Workspace, job_id: str, should_stop: ShouldStop = lambda: False, on_change: OnChange | None = None) -> Job:
    """Run a queued job in this process and return it when it has ended. A job that a worker has claimed is waited for.

    Args:
        workspace: where the job is.
        job_id: the job; one that has ended is returned as it is.
        should_stop: polled several times a second; True cancels the job.
        on_change: called with the job a few times a second while it runs, for showing progress.
    """
    workers = workspace.store.workers
    worker_id = workers.new_id()
    lock = workers.hold(worker_id)
    try:
        while True:
            claimed = workspace.store.jobs.claim(worker_id, job_id)
            if claimed is not None:
                run_claimed(workspace, claimed, should_stop, on_change)
            job = get_job(workspace, job_id)
            if not job.active:
                return job
            if on_change is not None:
                on_change(job)
            if should_stop():
                cancel_job(workspace, job_id)
            time.sleep(POLL_SECONDS)
    finally:
        lock.release()
        lock.path.unlink(missing_ok=True)


def run_claimed(
    workspace: Workspace, job: Job, should_stop: ShouldStop = lambda: False, on_change: OnChange | None = None
) -> None:
    """Run a job that was claimed for this process, and record the outcome."""
    folder_lock = FileLock(job.folder / ".lock")
    if not folder_lock.acquire(_FOLDER_SECONDS):
        error = f"another process still works in {job.folder}; wait for it to end, then retry"
        workspace.store.jobs.finish(job, "interrupted", error=error, error_expected=True, message="interrupted")
        return
    try:
        with Heartbeat(workspace, job, should_stop, on_change) as context:
            end = _run_handler(context)
        recorded = _record_end(context, end)
        if recorded and end.state == "succeeded":
            shutil.rmtree(job.checkpoint_folder, ignore_errors=True)
    finally:
        folder_lock.release()


class _End(NamedTuple):
    """Outcome of a job: the arguments of `JobQueue.finish`."""

    state: EndState
    result: dict[str, Any] | None = None
    error: str | None = None
    error_expected: bool = False


def _run_handler(context: JobContext) -> _End:
    job = context.job
    context.log(f"{job.title} ({job.id}), attempt {job.attempts}, process {os.getpid()}")
    try:
        result = _call_handler(context)
    except JobCancelled:
        context.log("cancelled")
        return _End("cancelled")
    except CtrlabError as error:
        context.log(f"failed: {error}")
        return _End("failed", error=str(error), error_expected=True)
    except KeyboardInterrupt:
        context.log("stopped from the keyboard")
        sentence = "stopped from the keyboard; retry to continue from the last checkpoint"
        return _End("interrupted", error=sentence, error_expected=True)
    except Exception as error:
        context.log("failed unexpectedly\n" + traceback.format_exc())
        return _End("failed", error=f"unexpected: {type(error).__name__}: {error}, see the log")
    context.log(f"succeeded: {result}")
    return _End("succeeded", result=result)


def _call_handler(context: JobContext) -> dict[str, Any]:
    entry = JOB_HANDLERS[context.job.kind]
    result = entry.builder()(entry.config_class.from_dict(context.job.config), context)
    if not isinstance(result, dict):
        raise TypeError(f"the handler of {context.job.kind!r} returned {type(result).__name__}, not a dict of ids")
    return result


class Heartbeat:
    """A thread beside the handler that writes its progress and curves, renews the lease, and polls the cancel flag."""

    def __init__(self, workspace: Workspace, job: Job, should_stop: ShouldStop, on_change: OnChange | None) -> None:
        self._store = workspace.store
        self._job = job
        self._caller_should_stop = should_stop
        self._on_change = on_change
        self._stop_handler = threading.Event()
        self._ended = threading.Event()
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat of {job.id}", daemon=True)
        self._context = JobContext(workspace, job, self._should_stop)

    def __enter__(self) -> JobContext:
        self._thread.start()
        return self._context

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _should_stop(self) -> bool:
        return self._stop_handler.is_set() or self._caller_should_stop()

    def _run(self) -> None:
        failing = False
        while not self._ended.wait(POLL_SECONDS):
            try:
                _write_progress(self._context)
                self._poll_lease()
                if self._on_change is not None:
                    self._on_change(self._store.jobs.get(self._job.id))
                failing = False
            except Exception as error:  # the store is busy or away: what was not written is written later
                if not failing:  # one line an outage
                    self._context.log(f"progress could not be written: {error}")
                failing = True

    def _poll_lease(self) -> None:
        jobs = self._store.jobs
        if time.monotonic() - self._renewed > _LEASE_RENEWAL_SECONDS:
            leases = jobs.heartbeat([self._job])
            self._renewed = time.monotonic()
        else:
            leases = jobs.watch([self._job])
        if not leases[self._job.id].owned or leases[self._job.id].cancel_requested:
            self._stop_handler.set()


def _write_progress(context: JobContext) -> None:
    """Write what the handler has reported; what could not be written is kept for the next call."""
    store, job = context.workspace.store, context.job
    progress, points = context.drain()
    try:
        store.metrics.append(job.id, points)
        points = []
        if progress is not None:
            store.jobs.report(job, *progress)
    except StorageError:
        context.restore(progress, points)
        raise


def _record_end(context: JobContext, end: _End) -> bool:
    """Write the last progress and the outcome; False when the job no longer belongs to this attempt.

    A store that is locked or cannot be reached is retried without limit: a failed write here would lose the result of the whole
    job. When the lease expires meanwhile and another worker takes the job, this attempt's outcome is dropped.
    """

    def write() -> bool:
        _write_progress(context)
        return context.workspace.store.jobs.finish(context.job, message=end.state, **end._asdict())

    return context.until_stored(write)
