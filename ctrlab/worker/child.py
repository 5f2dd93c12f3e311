"""The process that runs one job: it imports torch and the handlers, reads a job from its standard input, runs it and exits.

The imports take seconds; because they are done before there is a job, the job starts at once. The standard input also detects
the death of the worker, which closes it: the child then kills itself, so that the next worker can start the job again.
"""

import argparse
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial

from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.runner import run_claimed
from ctrlab.services.workspace import open_workspace
from ctrlab.storage import Job, Store
from ctrlab.storage.folders import PRIVATE_FILE

_logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the job named on standard input, then exit the process."""
    parser = argparse.ArgumentParser(prog="python -m ctrlab.worker.child")
    parser.add_argument("--background", action="store_true", help="import only while the processor is idle")
    parser.add_argument("modules", nargs="*", help="modules that register the kinds of job")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s child %(process)d: %(message)s", level=logging.INFO)
    faulthandler.enable()
    workspace = open_workspace()
    _warm_up(arguments.modules, arguments.background)
    _logger.info("ready for a job")
    job = _await_job(workspace.store)
    if job is not None:
        threading.Thread(target=_exit_with_worker, name="exit with the worker", daemon=True).start()
        _redirect_output(job)
        try:
            run_claimed(workspace, job)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os._exit(0)  # without waiting for threads that a library left behind


def _warm_up(modules: Sequence[str], background: bool) -> None:
    """Import all handlers. One that cannot be imported fails its own jobs and no others."""
    if background and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    for module in modules:
        _attempt(module, partial(importlib.import_module, module))
    for entry in JOB_HANDLERS:
        _attempt(entry.builder_path, entry.builder)
    if background and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _attempt(name: str, action: Callable[[], object]) -> None:
    try:
        action()
    except Exception:
        _logger.exception("%s could not be imported", name)


def _await_job(store: Store) -> Job | None:
    """The job that the worker writes as one line; None when the worker died or the job was taken over meanwhile."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return None
        line += byte
    request = json.loads(line)
    job = store.jobs.get(request["job_id"])
    return job if (job.worker_id, job.attempts) == (request["worker_id"], request["attempts"]) else None


def _exit_with_worker() -> None:
    """Wait until standard input closes, then kill this process and all that it started."""
    while os.read(0, 1):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _redirect_output(job: Job) -> None:
    """Redirect standard output and error, of Python and of native code, to the job's log."""
    sys.stdout.flush()
    log = os.open(job.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE_FILE)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


if __name__ == "__main__":
    main()
