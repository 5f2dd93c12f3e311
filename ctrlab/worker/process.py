"""One child process, as the worker sees it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ctrlab.services.workspace import Workspace
from ctrlab.storage import Job

#: Jobs give way to the dashboard.
_NICENESS = 5
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


class ChildProcess:
    """A process that warms up, then runs the one job it is given. It is the leader of its own process group."""

    def __init__(self, workspace: Workspace, modules: Sequence[str], *, threads: int, background: bool) -> None:
        """Start it.

        Args:
            workspace: where its job is.
            modules: register the kinds of job.
            threads: how many a library may use, unless the environment says otherwise.
            background: warm up only while the processor has nothing else to do.
        """
        command = [sys.executable, "-m", "ctrlab.worker.child", *(["--background"] if background else []), *modules]
        environment = {name: str(threads) for name in _THREAD_VARIABLES} | workspace.environment() | {"PYTHONUNBUFFERED": "1"}
        with (workspace.home / "worker.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=workspace.home,
                env=environment,
            )
        with contextlib.suppress(OSError):  # it may have ended already
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def give(self, job: Job) -> bool:
        """Tell it which job to run; False when it is dead."""
        request = {"job_id": job.id, "worker_id": job.worker_id, "attempts": job.attempts}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return False
        return True

    def exit_code(self) -> int | None:
        """None while it runs; -n when signal n killed it."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and to all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def end(self) -> None:
        """End it for certain, and wait for that."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def usable_processors() -> int:
    """Processors this process may use, a container's quota included."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max" for no quota
        return count
