"""Background jobs: list, progress, logs and curves, cancel and retry, and starting a worker."""

import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ctrlab.services.workspace import Workspace
from ctrlab.storage import Job, JobState
from ctrlab.storage.code_version import code_version

if TYPE_CHECKING:
    import pandas as pd

#: Bytes at the end of a log that are read; the file keeps everything.
_LOG_TAIL_BYTES = 512 * 1024
#: A worker started by `ensure_worker` exits after this long without a job.
WORKER_IDLE_SECONDS = 1800.0
#: From the start of a worker's process until it is registered, on a busy machine.
_START_SECONDS = 30.0
#: Between two starts when the first ended at once.
_RESTART_SECONDS = 2.0


def list_jobs(workspace: Workspace, limit: int | None = 100, states: Iterable[JobState] | None = None) -> list[Job]:
    """Newest first. A job whose worker died is never shown as running."""
    wanted = None if states is None else tuple(states)
    jobs = workspace.store.jobs.list(limit, wanted)
    return workspace.store.jobs.list(limit, wanted) if _take_over_dead(workspace, jobs) else jobs


def get_job(workspace: Workspace, job_id: str) -> Job:
    """The job, after jobs of dead workers were taken over; UnknownNameError when there is none."""
    job = workspace.store.jobs.get(job_id)
    return workspace.store.jobs.get(job_id) if _take_over_dead(workspace, [job]) else job


def cancel_job(workspace: Workspace, job_id: str) -> Job:
    """Stop a job: at once when it is queued or its worker is dead, within two seconds when it runs."""
    workspace.store.jobs.request_cancel(job_id)
    return get_job(workspace, job_id)


def retry_job(workspace: Workspace, job_id: str) -> Job:
    """Queue a failed, cancelled or interrupted job again; it continues from its last checkpoint. StorageError in other states."""
    return workspace.store.jobs.retry(job_id)


def job_log(workspace: Workspace, job_id: str, max_lines: int = 500) -> str:
    """The end of the job's log; "" while there is none."""
    path = workspace.store.jobs.get(job_id).log_path
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-max_lines:])


def job_curves(workspace: Workspace, job_id: str, since_step: int | None = None) -> "pd.DataFrame":
    """The job's metrics: columns step (int64), name, value (float64), by step."""
    import pandas as pd  # half a second that the worker and the command line do not need

    rows = workspace.store.metrics.read(job_id, since_step)
    table = pd.DataFrame(rows, columns=["step", "name", "value"])
    return table.astype({"step": "int64", "value": "float64"})


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """Whether a worker is alive, and its jobs.

    outdated: the worker runs another version of the code than this process. running: ids of jobs.
    """

    alive: bool
    pid: int | None
    started_at: datetime | None
    running: tuple[str, ...]
    queued: int
    outdated: bool


def worker_state(workspace: Workspace) -> WorkerState:
    """State of the worker and the queue."""
    alive = workspace.store.workers.alive()
    active = list_jobs(workspace, limit=None, states=("queued", "running"))
    return WorkerState(
        alive=bool(alive),
        pid=alive[0].pid if alive else None,
        started_at=alive[0].started_at if alive else None,
        running=tuple(job.id for job in active if job.state == "running"),
        queued=sum(job.state == "queued" for job in active),
        outdated=bool(alive) and alive[0].code_version != code_version(),
    )


_started: dict[Path, tuple["subprocess.Popen[bytes]", float]] = {}
_starting = threading.Lock()


def ensure_worker(
    workspace: Workspace, command: Sequence[str] | None = None, *, restart_seconds: float = _RESTART_SECONDS
) -> None:
    """Start a worker, detached from this process, if none is alive. Cheap enough to call on every page.

    Several processes may do this at once: of the workers they start, one stays and the others exit.

    Args:
        workspace: where the jobs are.
        command: another way to start a worker than `python -m ctrlab worker`.
        restart_seconds: between two starts when the first ended at once.
    """
    with _starting:
        process, since = _started.get(workspace.home, (None, -math.inf))
        pause = restart_seconds if process is None or process.poll() is not None else _START_SECONDS
        if time.monotonic() - since < pause:
            return  # it is starting, or it ended at once and would again
        if workspace.store.workers.alive():
            return
        process = workspace.start_process(command or _worker_command(), log="worker.log")
        _started[workspace.home] = (process, time.monotonic())


def _worker_command() -> list[str]:
    return [sys.executable, "-m", "ctrlab", "worker", "--idle-exit-seconds", str(int(WORKER_IDLE_SECONDS))]


def _take_over_dead(workspace: Workspace, jobs: Sequence[Job]) -> bool:
    """End or queue again running jobs of dead workers; whether anything changed."""
    running = [job for job in jobs if job.state == "running" and job.worker_id]
    if not any(workspace.store.workers.is_known_dead(job.worker_id or "") for job in running):
        return False
    return bool(workspace.store.jobs.reap_expired())
