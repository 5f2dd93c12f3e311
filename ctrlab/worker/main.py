"""`python -m ctrlab worker`: the one worker of a home folder."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from ctrlab.errors import ConfigError, StorageError
from ctrlab.services.disk import clean_expired
from ctrlab.services.handlers import HANDLER_MODULES
from ctrlab.services.workspace import PRIVATE_UMASK, Workspace
from ctrlab.worker.executors.local import LocalExecutor
from ctrlab.worker.processors import usable_processors
from ctrlab.worker.supervisor import Supervisor, logger

_MAX_LOG_BYTES = 5_000_000
_NAMES_IN_LOG = 10


def run_worker(
    workspace: Workspace,
    *,
    idle_exit_seconds: float | None = None,
    concurrency: int = 1,
    handler_modules: Sequence[str] = HANDLER_MODULES,
) -> int:
    """Run jobs until SIGTERM or SIGINT; return 0, the exit status. Where the home folder has a living worker, return at once.

    When stopped, the jobs that run go back to the queue and continue from their checkpoints with the next worker.

    Args:
        workspace: whose jobs to run.
        idle_exit_seconds: exit after this long without a job; None never exits.
        concurrency: how many jobs run at once, at least 1; they share the processors.
        handler_modules: modules that register the kinds of job in `JOB_HANDLERS`; the store cannot add to them.

    Raises:
        ConfigError: `concurrency` is below 1.
    """
    if concurrency < 1:
        raise ConfigError(f"a worker runs at least 1 job at a time, got {concurrency}")
    os.umask(PRIVATE_UMASK)
    _set_up_log(workspace)
    start = partial(LocalExecutor, workspace, handler_modules, threads=max(1, usable_processors() // concurrency))
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    election = workspace.store.workers.election_lock()
    while election.acquire():
        try:
            _clean_up(workspace)
            reason = Supervisor(workspace, start, concurrency, idle_exit_seconds, stop).run()
        finally:
            election.release()
        # A job may have been submitted after the last claim and before this worker left the registry: its submitter saw a
        # living worker and started none.
        if reason == "stopped" or workspace.store.jobs.count("queued") == 0:
            return 0
    logger.info("another worker is alive on %s", workspace.home)
    return 0


def _clean_up(workspace: Workspace) -> None:
    """Move what crashes left behind to the trash, and delete old trash, checkpoints and uploads; all of it is logged."""
    store, now = workspace.store, datetime.now(UTC)
    try:
        for entry in store.artifacts.sweep():
            logger.info("moved %s (%d bytes, left by a crash, not in the store) to %s", entry.name, entry.size_bytes, entry.path)
        for path in clean_expired(workspace, now):
            logger.info("deleted %s, which was kept long enough", path)
        for entry in store.trash.purge(now):
            logger.info("deleted %s (%d bytes, in the trash since %s)", entry.path, entry.size_bytes, f"{entry.removed_at:%F}")
        if unknown := store.artifacts.unknown_folders():
            names = ", ".join(unknown[:_NAMES_IN_LOG])
            logger.info("left alone in artifacts/, for this store has no row for them: %d, such as %s", len(unknown), names)
    except StorageError as error:  # jobs can run all the same
        logger.warning("cleaning up failed: %s", error)


def _set_up_log(workspace: Workspace) -> None:
    """To home/worker.log, and to the terminal where there is one."""
    path = workspace.home / "worker.log"
    if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    handlers: list[logging.Handler] = [logging.FileHandler(path, encoding="utf-8")]
    if sys.stderr.isatty():
        handlers.append(logging.StreamHandler())
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s worker %(process)d: %(message)s"))
    logger.handlers = handlers
    logger.setLevel(logging.INFO)
