from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from ctrlab.services.workspace import Workspace, open_workspace
from tests.support.worker_support import StartWorker, eventually, start_worker_process


@pytest.fixture(autouse=True, scope="module")
def no_other_store() -> Iterator[None]:
    """The tests use the store in their own home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CTRLAB_STORE_URL", raising=False)
        yield


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = open_workspace(tmp_path / "home")
    yield workspace
    workspace.store.close()


@pytest.fixture
def start_worker(workspace: Workspace) -> Iterator[StartWorker]:
    """Starts worker processes and waits until each is registered; they are killed at the end."""
    started: list[Popen[bytes]] = []

    def start(*arguments: str) -> "Popen[bytes]":
        process = start_worker_process(workspace, *arguments)
        started.append(process)
        eventually(lambda: process.pid in [worker.pid for worker in workspace.store.workers.alive()])
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
