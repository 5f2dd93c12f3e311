"""`python -m ctrlab worker`: the one worker of a home folder."""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence

from ctrlab.services.handlers import HANDLER_MODULES
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.worker.supervisor import Supervisor, logger

_MAX_LOG_BYTES = 5_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of the worker; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ctrlab worker", description="Run the jobs of a home folder until stopped.")
    parser.add_argument("--home", help="home folder (default: CTRLAB_HOME, else the user's data directory)")
    parser.add_argument("--idle-exit", type=float, metavar="SECONDS", help="leave after this long without a job")
    parser.add_argument("--concurrency", type=int, default=1, help="how many jobs run at once (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.concurrency < 1:
        parser.error(f"--concurrency must be at least 1, got {arguments.concurrency}")
    workspace = open_workspace(arguments.home)
    run_worker(workspace, idle_exit_seconds=arguments.idle_exit, concurrency=arguments.concurrency)
    return 0


def run_worker(
    workspace: Workspace,
    *,
    idle_exit_seconds: float | None = None,
    concurrency: int = 1,
    handler_modules: Sequence[str] = HANDLER_MODULES,
) -> None:
    """Run jobs until SIGTERM or SIGINT; return at once and quietly where the home folder has a living worker.

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
            return
    logger.info("another worker is alive on %s", workspace.home)


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
