"""Interactive plan evaluation in a long-lived worker process, which keeps the model and validation rows in memory.

A job would take seconds to start and would stay in the list; previews are neither stored nor resumed. The process loads torch,
the dashboard does not. They exchange JSON lines over the process's standard input and output; when the dashboard dies, that
input closes and the process ends.
"""

import contextlib
import json
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from ctrlab.config import Config
from ctrlab.errors import CtrlabError
from ctrlab.evaluation.delong import Interval
from ctrlab.plans.configs import UNCOMPRESSED, CompressionSpec
from ctrlab.services.models import require_artifact
from ctrlab.services.outside import abilities
from ctrlab.services.workspace import Workspace

#: Size of the cache of answers, so that moving a slider back needs no measurement.
KEPT_ANSWERS = 512
_ENDED = "the process that measures plans ended, perhaps out of memory; the next slider move restarts it"


class PreviewError(CtrlabError):
    """A plan could not be measured."""


class Superseded(PreviewError):
    """A newer request of the same page replaced this one before it started."""


@dataclass(frozen=True, kw_only=True)
class PreviewRequest(Config):
    """A compression of a model, to be measured on its validation rows; an empty plan measures the original.

    spec: measured in float32 whatever its precision.
    """

    model_id: str
    spectra_id: str
    spec: CompressionSpec


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Measured accuracy of a truncated model before fine-tuning.

    Changes are from the original on the same rows, with 95 % intervals.

    num_rows: validation rows. seconds: that the process took.
    """

    num_rows: int
    auc: Interval
    auc_change: Interval
    log_loss: float
    log_loss_change: Interval
    original_auc: float
    original_log_loss: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        intervals = {key: Interval(**values[key]) for key in ("auc", "auc_change", "log_loss_change")}
        return cls(**{**values, **intervals})


@dataclass(frozen=True, kw_only=True)
class OwnMeasure:
    """What an outside model's own `evaluate` gave for a truncated model and for the original; higher is better."""

    value: float
    original: float
    seconds: float


#: What the process says of a plan.
Answer = Preview | OwnMeasure


@dataclass(frozen=True)
class _Asked:
    request: PreviewRequest
    answer: "Future[Answer]"


class PreviewProcess:
    """Client of one process, which starts at the first request and again after it ended. Safe to use from any thread."""

    def __init__(self, workspace: Workspace, command: Sequence[str] | None = None, *, kept_answers: int = KEPT_ANSWERS) -> None:
        """The process starts at the first request.

        Args:
            workspace: where the models are.
            command: another way to start the process than `python -m ctrlab.worker.preview`.
            kept_answers: size of the cache of answers.
        """
        self._workspace, self._kept_answers = workspace, kept_answers
        self._command = list(command or (sys.executable, "-m", "ctrlab.worker.preview"))
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._running: _Asked | None = None
        self._waiting: OrderedDict[str, _Asked] = OrderedDict()
        self._answers: OrderedDict[PreviewRequest, Answer] = OrderedDict()

    def ask(self, request: PreviewRequest, asker: str = "") -> "Future[Answer]":
        """Request the measurement of a plan; returns immediately.

        Args:
            asker: the client, such as a browser session: its newer request replaces its pending one.

        Returns:
            Its result is the preview, or an outside model's own measure, or raises CtrlabError with what went wrong (Superseded
            where it was replaced).
        """
        with self._lock:
            known = self._answers.get(request)
            if known is not None:
                self._answers.move_to_end(request)
                return _done(known)
            for asked in (self._running, self._waiting.get(asker)):
                if asked is not None and asked.request == request:
                    return asked.answer
            replaced = self._waiting.pop(asker, None)
            asked = _Asked(request, Future())
            self._waiting[asker] = asked
            self._send_next()
        if replaced is not None:
            replaced.answer.set_exception(Superseded("another plan was requested"))
        return asked.answer

    def close(self) -> None:
        """End the process."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _send_next(self) -> None:
        """Send the newest pending request to the process if it is idle. The lock must be held."""
        if self._running is not None or not self._waiting:
            return
        _, asked = self._waiting.popitem()
        line = json.dumps(asked.request.to_dict()).encode() + b"\n"
        for _ in range(2):  # the first write fails if the process ended while idle
            process = self._alive()
            try:
                assert process.stdin is not None
                process.stdin.write(line)
                process.stdin.flush()
            except OSError:
                process.kill()
                continue
            self._running = asked
            return
        asked.answer.set_exception(PreviewError(_ENDED))

    def _alive(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._process = self._workspace.start_process(
                self._command, log="preview.log", stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            threading.Thread(target=self._listen, args=(self._process,), name="previews", daemon=True).start()
        return self._process

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        """Read answers until the process ends; a request left open then fails with an error."""
        output: IO[bytes] | None = process.stdout
        assert output is not None
        for line in output:
            with contextlib.suppress(ValueError):
                self._take(json.loads(line))
        process.wait()
        with self._lock:
            ours = self._process is process
            open_question, self._running = (self._running, None) if ours else (None, self._running)
            if ours:
                self._process = None
                self._send_next()
        if open_question is not None:
            open_question.answer.set_exception(PreviewError(_ENDED))

    def _take(self, message: dict[str, Any]) -> None:
        with self._lock:
            asked, self._running = self._running, None
            found = _answer_in(message)
            if asked is not None and found is not None:
                self._answers[asked.request] = found
                while len(self._answers) > self._kept_answers:
                    self._answers.popitem(last=False)
            self._send_next()
        if asked is None:
            return
        if found is not None:
            asked.answer.set_result(found)
        else:
            asked.answer.set_exception(PreviewError(message["error"]))


def _answer_in(message: dict[str, Any]) -> Answer | None:
    """What a line of the process holds; None for an error."""
    if "preview" in message:
        return Preview.from_dict(message["preview"])
    return OwnMeasure(**message["own"]) if "own" in message else None


def _done(found: Answer) -> "Future[Answer]":
    answer: Future[Answer] = Future()
    answer.set_result(found)
    return answer


_processes: dict[Path, PreviewProcess] = {}
_finding = threading.Lock()


def preview_process(workspace: Workspace) -> PreviewProcess:
    """The one process of a workspace in this process."""
    with _finding:
        return _processes.setdefault(workspace.home, PreviewProcess(workspace))


def prepare(workspace: Workspace, model_id: str, spectra_id: str) -> None:
    """Start the process and have it load a model, so that the first plan is measured at once; returns immediately.

    Nothing starts for a model whose plans cannot be measured.
    """
    if not abilities(workspace, require_artifact(workspace, model_id, "model")).allows("sensitivity"):
        return
    preview_process(workspace).ask(PreviewRequest(model_id=model_id, spectra_id=spectra_id, spec=UNCOMPRESSED), "prepare")
