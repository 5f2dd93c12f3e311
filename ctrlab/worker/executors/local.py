"""An executor on this machine: one child process a job."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from ctrlab.services.workspace import Workspace
from ctrlab.storage import Job

#: Jobs run at a lower priority than the dashboard.
_NICENESS = 5
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


class LocalExecutor:
    """A child process that imports torch and the handlers, then runs one job. It leads its own process group."""

    def __init__(self, workspace: Workspace, modules: Sequence[str], *, threads: int, background: bool) -> None:
        """Start the process.

        Args:
            workspace: where its job is.
            modules: register the kinds of job.
            threads: how many threads a library may use, unless the environment says otherwise.
            background: warm up only while the processor is idle.
        """
        command = [sys.executable, "-m", "ctrlab.worker.child", *(["--background"] if background else []), *modules]
        threads_each = {name: str(threads) for name in _THREAD_VARIABLES if name not in os.environ}
        self._process = workspace.start_process(
            command, log="worker.log", stdin=subprocess.PIPE, variables={**threads_each, "PYTHONUNBUFFERED": "1"}
        )
        with contextlib.suppress(OSError):  # it may have ended already
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)

    @property
    def name(self) -> str:
        """Its process id, for the log."""
        return f"process {self._process.pid}"

    def give(self, job: Job) -> bool:
        """Write the job to its standard input; False when the process is dead."""
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
        """Send a signal to its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def end(self) -> None:
        """Kill its process group and wait for the process."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
