"""What all processes of a test run share: pytest-xdist makes a session fixture once in each of them.

An expensive thing is made by the first process that needs it; the others find it through a file in the folder of the run.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


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
