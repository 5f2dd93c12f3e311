"""One browser-test server and one opened sample for all processes of a test run.

pytest-xdist runs tests in several processes, and a session fixture is made once in each. What is expensive is made by the first
process that needs it and found by the others through files in the run's own folder. The kernel drops a file lock when its holder
dies, so a test process that crashes leaves no server behind as long as another one ends in good order.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from tests.support.browser import Server, free_port


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder that all test processes of this run share, and no other run."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Mutual exclusion between processes."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def once(path: Path, make: Callable[[], Any]) -> Any:
    """The JSON value of `make`, which is called by the first process of the run only; `path` keeps the value."""
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            path.write_text(json.dumps(make()))
        return json.loads(path.read_text())


@contextmanager
def shared_server(folder: Path) -> Iterator[Server]:
    """The server on `folder`: started for its first user, ended with its last."""
    folder.mkdir(exist_ok=True)
    address = folder / "server.json"
    with (folder / "users.lock").open("a") as users:
        with locked(folder / "server.lock"):
            fcntl.flock(users, fcntl.LOCK_SH)
            server = _joined(folder / "home", address) if address.exists() else _started(folder / "home", address)
        try:
            yield server
        finally:
            with locked(folder / "server.lock"):
                if _is_last(users):
                    address.unlink()
                    server.process.kill()  # not waited for: it may be another process's child
                    server.stop_workers()


def _started(home: Path, address: Path) -> Server:
    home.mkdir(exist_ok=True)
    server = Server(home, free_port())
    server.start()
    assert server.process is not None
    address.write_text(json.dumps({"port": server.port, "pid": server.process.pid}))
    return server


def _joined(home: Path, address: Path) -> Server:
    known = json.loads(address.read_text())
    return Server(home, known["port"], psutil.Process(known["pid"]))


def _is_last(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
