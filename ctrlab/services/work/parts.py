"""Jobs made of other jobs' work: each part has its share of the progress bar and its own folder, and runs once however often
the whole is resumed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ctrlab.config import Config
from ctrlab.services.handlers import JOB_HANDLERS, JobContext
from ctrlab.storage import Artifact, NewArtifact

_DONE = "parts.json"


class JobPart(JobContext):
    """The context of one part of a job: reports into start..end of the whole, works in a folder of its own."""

    def __init__(self, whole: JobContext, name: str, start: float, end: float) -> None:
        self._whole, self._name, self._start, self._end = whole, name, start, end
        self.workspace, self.job = whole.workspace, whole.job
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def folder(self) -> Path:
        """Inside the job's own."""
        return self._whole.folder / self._name

    def report(self, fraction: float, message: str = "", eta_seconds: float | None = None) -> None:
        """Set the part's progress, 0 to 1; the time left is that of the whole job."""
        share = min(max(float(fraction), 0.0), 1.0)
        self._whole.report(self._start + (self._end - self._start) * share, f"{self._name}: {message}" if message else self._name)

    def metric(self, step: int, **values: float | None) -> None:
        """Curves of several fits would be drawn over each other; a whole of parts has none."""

    def should_stop(self) -> bool:
        return self._whole.should_stop()

    def log(self, text: str) -> None:
        self._whole.log(f"{self._name}: {text}")

    def add_artifact(self, new: NewArtifact, *, key: str | None = None) -> Artifact:
        """`JobContext.add_artifact`, once per job, part and key."""
        return self._whole.add_artifact(new, key=f"{self._name}: {key or new.kind}")


class Parts:
    """The parts of one job in order. What a finished part gave is kept in the job's folder."""

    def __init__(self, context: JobContext, shares: Mapping[str, float]) -> None:
        """shares: {part: its share of the progress bar}, in order; they are scaled to 1."""
        self._context, self._path = context, context.folder / _DONE
        total, start = sum(shares.values()), 0.0
        self._spans: dict[str, tuple[float, float]] = {}
        for name, share in shares.items():
            self._spans[name] = (start, start := start + share / total)
        self._done: dict[str, dict[str, Any]] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def do(self, name: str, work: Callable[[JobContext], dict[str, Any]]) -> dict[str, Any]:
        """What `work` gives, of an earlier attempt where that finished it."""
        if name not in self._done:
            self._context.stop_if_requested()
            part = JobPart(self._context, name, *self._spans[name])
            part.report(0.0)
            self._done[name] = work(part)
            unfinished = self._path.with_suffix(".part")
            unfinished.write_text(json.dumps(self._done))
            unfinished.replace(self._path)
        return self._done[name]

    def do_job(self, name: str, kind: str, config: Config) -> dict[str, Any]:
        """The result of another kind of job, done here."""
        run = JOB_HANDLERS[kind].builder()
        return self.do(name, lambda part: run(config, part))
