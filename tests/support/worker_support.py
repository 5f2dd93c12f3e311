"""Helpers of the worker tests: start a worker, wait for a condition, check whether a process is alive."""

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import psutil

from ctrlab.config import Config
from ctrlab.services.jobs import job_log
from ctrlab.services.workspace import Workspace
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
_WORKER_MODULE = "tests.support.worker_process"

#: The command of a worker that knows the kinds of job in `sample_handlers`.
WORKER_COMMAND = [sys.executable, "-m", _WORKER_MODULE]

StartWorker = Callable[..., "Popen[bytes]"]


def start_worker_process(workspace: Workspace, *arguments: str) -> "Popen[bytes]":
    """A worker in a session of its own that knows the kinds of job in `sample_handlers`."""
    environment = workspace.environment()
    environment["PYTHONPATH"] += os.pathsep + str(ROOT)
    return Popen([*WORKER_COMMAND, *arguments], env=environment, start_new_session=True)


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until `condition` holds; fail when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def submit(workspace: Workspace, kind: str, config: Config) -> str:
    """Queue a job of one of the kinds in `sample_handlers`."""
    return workspace.store.jobs.submit(kind, kind.title(), config.to_dict()).id


def wait_for_end(workspace: Workspace, job_id: str, seconds: float = PATIENCE) -> str:
    """The state in which the job ended."""
    eventually(lambda: not workspace.store.jobs.get(job_id).active, seconds)
    return workspace.store.jobs.get(job_id).state


def counted(workspace: Workspace, job_id: str) -> list[str]:
    """The lines that the attempts of a `count` job left."""
    path = workspace.store.jobs.get(job_id).folder / "counted.txt"
    return path.read_text().splitlines() if path.exists() else []


def warm_children(workspace: Workspace) -> list[psutil.Process]:
    """Child processes of the home's worker that have imported everything and wait for a job."""
    (worker,) = workspace.store.workers.alive()
    log = (workspace.home / "worker.log").read_text()
    children = [child for child in psutil.Process(worker.pid).children() if f"child {child.pid}: ready for a job" in log]
    busy = {int(pid) for pid in re.findall(r"runs in process (\d+)", log)}
    return [child for child in children if child.pid not in busy]


def child_pids(workspace: Workspace, job_id: str) -> list[int]:
    """The processes of a `unresponsive` job."""
    path = workspace.store.jobs.get(job_id).folder / "pids.txt"
    eventually(path.exists)
    return [int(pid) for pid in path.read_text().split() if pid != "0"]


def pid_of_attempt(workspace: Workspace, job_id: str) -> int:
    """The process of the latest attempt."""
    eventually(lambda: "process " in job_log(workspace, job_id))
    return int(job_log(workspace, job_id).split("process ")[-1].split()[0])
