"""Opens strange files in a child process on behalf of the dashboard.

A file that exhausts the memory, hangs or crashes a library then costs one request, not the dashboard. And the process of the
dashboard, which holds the locks of the store's database, opens no file that somebody named (see `services.paths`).
"""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrlab import errors
from ctrlab.data.configs import ColumnConfig, SourceConfig
from ctrlab.errors import CtrlabError, DataError
from ctrlab.services.workspace import Workspace

if TYPE_CHECKING:
    from ctrlab.data.tables.inspect import TableInspection

_TIME_LIMIT_SECONDS = 60.0


class Inspector:
    """One child process per request. A spare one is kept started, because starting takes most of a second. Thread-safe.

    Args:
        command: starts the child.
        time_limit: seconds after which a request is given up and its child is killed.
    """

    def __init__(
        self, workspace: Workspace, command: Sequence[str] | None = None, time_limit: float = _TIME_LIMIT_SECONDS
    ) -> None:
        self._workspace = workspace
        self._command = list(command or (sys.executable, "-m", "ctrlab.services.inspect_child"))
        self._time_limit = time_limit
        self._lock = threading.Lock()
        self._spare: subprocess.Popen[bytes] | None = None

    def inspect(
        self, source: SourceConfig, max_rows: int = 200_000, *, label: ColumnConfig | None = None
    ) -> "TableInspection":  # fmt: skip
        """`inspect_table` in a child process.

        Raises:
            DataError: as `inspect_table`, or the child ended without an answer or within the time limit.
        """
        request = {"do": "inspect", "source": source.to_dict(), "max_rows": max_rows, "label": label and label.to_dict()}
        return _inspection(self._ask(request, source.paths[0]))

    def inspect_known(self, known: str, paths: Sequence[str]) -> "TableInspection":
        """`KnownDataset.inspect` in a child process; raises as `inspect`."""
        answer = self._ask({"do": "inspect_known", "known": known, "paths": list(paths)}, paths[0] if paths else "the file")
        return _inspection(answer)

    def fingerprint(self, path: str | Path) -> str:
        """The schema fingerprint of a checkpoint, read in a child process.

        Raises:
            StorageError: as `read_model_header`. DataError: the child ended without an answer.
        """
        return str(self._ask({"do": "fingerprint", "path": str(path)}, path)["fingerprint"])

    def warm_up(self) -> None:
        """Start a spare child if there is none; returns at once."""
        with self._lock:
            if self._spare is None or self._spare.poll() is not None:
                self._spare = self._start()

    def close(self) -> None:
        """End the spare child."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.kill()
            spare.communicate()

    def _ask(self, request: dict[str, Any], path: str | Path) -> dict[str, Any]:
        line, name = json.dumps(request).encode() + b"\n", Path(path).name
        process = self._take()
        output = self._communicate(process, line, name)
        if not output and process.returncode == 0:  # a spare that reached its idle limit just now
            process = self._start()
            output = self._communicate(process, line, name)
        self.warm_up()
        if process.returncode or not output:
            raise DataError(
                f"{name} could not be opened: the process that reads it ended unexpectedly (exit code {process.returncode}), "
                "perhaps because the file needs more memory than is free"
            )
        answer: dict[str, Any] = json.loads(output)
        if "error" in answer:
            raise _error_class(answer["kind"])(answer["error"])
        return answer

    def _communicate(self, process: "subprocess.Popen[bytes]", line: bytes, name: str) -> bytes:
        try:
            return process.communicate(line, timeout=self._time_limit)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise DataError(
                f"{name} could not be opened within {self._time_limit:g} seconds; give a smaller file, or look at it with "
                "`ctrlab data inspect`"
            ) from None

    def _take(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            spare, self._spare = self._spare, None
        return spare if spare is not None and spare.poll() is None else self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        return self._workspace.start_process(self._command, log="inspect.log", stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _inspection(answer: dict[str, Any]) -> "TableInspection":
    from ctrlab.data.tables.inspect import TableInspection  # loads polars and pyarrow, which the first page does without

    return TableInspection.from_dict(answer["inspection"])


def _error_class(kind: str) -> type[CtrlabError]:
    found = getattr(errors, kind, None)
    return found if isinstance(found, type) and issubclass(found, CtrlabError) else CtrlabError


_inspectors: dict[Path, Inspector] = {}
_creating = threading.Lock()


def inspector(workspace: Workspace) -> Inspector:
    """The inspector of a workspace in this process."""
    with _creating:
        return _inspectors.setdefault(workspace.home, Inspector(workspace))
