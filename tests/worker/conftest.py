import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from worker_support import HERE, WORKER_SCRIPT, StartWorker, eventually

from ctrlab.services.workspace import Workspace, open_workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    workspace = open_workspace(tmp_path / "home")
    yield workspace
    workspace.store.close()


@pytest.fixture
def start_worker(workspace: Workspace) -> Iterator[StartWorker]:
    """Starts worker processes and waits until each is on the roster; they are killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, wait: bool = True) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, str(WORKER_SCRIPT), *arguments], env=workspace.environment(), start_new_session=True
        )
        started.append(process)
        if wait:
            eventually(lambda: process.pid in [worker.pid for worker in workspace.store.workers.alive()])
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
