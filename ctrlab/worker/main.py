"""`python -m ctrlab worker`: the one worker of a home folder."""

import logging
import signal
import sys
import threading
from collections.abc import Sequence

from ctrlab.services.handlers import HANDLER_MODULES
from ctrlab.services.workspace import Workspace
from ctrlab.worker.supervisor import Supervisor, logger

_MAX_LOG_BYTES = 5_000_000


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
        idle_exit_seconds: leave after this long without a job; None stays.
        concurrency: how many jobs run at once.
        handler_modules: modules that register the kinds of job in `JOB_HANDLERS`; the store cannot add to them.
    """
    _set_up_log(workspace)
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    election = workspace.store.workers.election_lock()
    while election.acquire():
        try:
            workspace.store.artifacts.sweep()
            reason = Supervisor(workspace, handler_modules, concurrency, idle_exit_seconds, stop).run()
        finally:
            election.release()
        # A job may have come between the last look and the leaving of the roster; whoever sent it saw a living worker.
        if reason == "stopped" or workspace.store.jobs.count("queued") == 0:
            return 0
    logger.info("another worker is alive on %s", workspace.home)
    return 0


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
