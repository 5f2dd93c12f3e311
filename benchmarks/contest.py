"""Contenders as processes that stay alive through all rounds and sleep between their turns."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import PROJECT

HERE = Path(__file__).parent
WORK = HERE / "work"


@dataclass(frozen=True)
class Entry:
    """A contender.

    label: its name in tables. wait_policy: OMP_WAIT_POLICY of its process, which users mostly leave unset. project: the checkout
    whose code it runs.
    """

    label: str
    framework: str
    dtype: str = "float32"
    model: str = "deepfm"
    settings: tuple[tuple[str, Any], ...] = ()
    wait_policy: str | None = None
    project: Path = PROJECT


class Running:
    """A contender's process."""

    def __init__(self, entry: Entry, rows: Path | None, threads: int, interop: Path) -> None:
        self.entry = entry
        peer = entry.framework.startswith("peer")
        command = [
            str(interop) if peer else sys.executable, str(entry.project / "benchmarks" / "contender.py"),
            "--framework", entry.framework, "--model", entry.model, "--dtype", entry.dtype, "--threads", str(threads),
            "--settings", json.dumps(dict(entry.settings)), *(["--rows", str(rows)] if rows else []),
        ]  # fmt: skip
        # All are run as their users run them, in whatever environment this benchmark was started.
        environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "PYTHONPATH")}
        environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        environment |= {"OMP_WAIT_POLICY": entry.wait_policy} if entry.wait_policy else {}
        environment["PYTHONPATH"] = str(entry.project)
        WORK.mkdir(parents=True, exist_ok=True)
        self.log = (WORK / "contenders.log").open("ab")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=environment, text=True
        )

    def tell(self, do: str, **order: Any) -> dict[str, Any]:
        """Send a request and wait for the response.

        Raises:
            RuntimeError: the process ended.
        """
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps({"do": do, **order}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.entry.label} ({self.entry.model}) ended; see {WORK / 'contenders.log'}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


@contextmanager
def running(entry: Entry, rows: Path | None, threads: int, interop: Path) -> Iterator[Running]:
    """A contender whose process ends with the `with` block."""
    contender = Running(entry, rows, threads, interop)
    try:
        yield contender
    finally:
        contender.close()
