"""One browser-test server for all processes of a test run.

It is started by its first user, found by the others through a file, and ended by the last. The kernel drops a file lock when its
holder dies, so a test process that crashes leaves no server behind as long as another one ends in good order.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

from tests.support.browser import Server, free_port
from tests.support.shared import locked


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
