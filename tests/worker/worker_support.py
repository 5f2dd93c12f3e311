"""What the worker tests share: start a worker, wait for something, look whether a process lives."""

import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

HERE = Path(__file__).parent
WORKER_SCRIPT = HERE / "worker_process.py"

StartWorker = Callable[..., "Popen[bytes]"]


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
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
