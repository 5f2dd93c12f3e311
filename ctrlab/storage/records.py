"""Records that the store takes and returns: frozen dataclasses, never live database rows."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

ArtifactKind = Literal[
    "dataset", "model", "spectra", "sensitivity", "speed", "plan", "evaluation", "timing", "segments", "serving", "bundle",
    "scores", "report",
]  # fmt: skip
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]

#: Each kind's prefix of an artifact id, such as "ds-0f3a9c2e".
ID_PREFIXES: dict[str, str] = {
    "dataset": "ds", "model": "model", "spectra": "spectra", "sensitivity": "sens", "speed": "speed", "plan": "plan",
    "evaluation": "eval", "timing": "timing", "segments": "seg", "serving": "serving", "bundle": "bundle", "scores": "scores",
    "report": "report",
}  # fmt: skip
#: Characters of an artifact's name.
MAX_NAME_LENGTH = 200
#: A job in one of these states may still change by itself.
ACTIVE_STATES: tuple[JobState, ...] = ("queued", "running")
#: A job in one of these states can be made runnable again.
RETRYABLE_STATES: tuple[JobState, ...] = ("failed", "cancelled", "interrupted")


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What people wrote about an artifact or a job.

    note: free text. tags: short labels to search by. star: a favourite. archived: left out of lists that do not ask for it.
    """

    note: str = ""
    tags: tuple[str, ...] = ()
    star: bool = False
    archived: bool = False


@dataclass(frozen=True)
class NewArtifact:
    """What is to be stored as an artifact.

    name: shown to people, 1 to 200 characters.
    parents: ids of the artifacts it was made from.
    config: the settings it was made with. summary: its figures. Both are stored as JSON.
    files_from: folder of its files; it is moved, not copied, into the store.
    """

    kind: ArtifactKind
    name: str
    _: KW_ONLY
    parents: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    files_from: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A stored result: what it is, what it was made from and how, and where its files are.

    parents: ids of the artifacts it was made from, in the order given; lineage is the chain of these.
    path: its folder; it exists when the artifact has files.
    job_id: the job that made it, None when none did.
    """

    id: str
    kind: ArtifactKind
    name: str
    parents: tuple[str, ...]
    config: dict[str, Any]
    summary: dict[str, Any]
    seed: int | None
    code_version: str
    created_at: datetime
    path: Path
    job_id: str | None = None
    annotation: Annotation = Annotation()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One background job and its progress.

    progress: 0 to 1. eta_seconds: estimated seconds left, None when not known yet.
    result: kind of artifact -> artifact id. error_expected: `error` is a sentence for the user, not a bug in ctrlab.
    attempts: how often it was started; only the worker `worker_id` in this attempt may write to a running job.
    folder: holds log.txt, and checkpoints/ from which an attempt resumes the one before.
    """

    id: str
    kind: str
    title: str
    config: dict[str, Any]
    state: JobState
    progress: float
    message: str
    eta_seconds: float | None
    result: dict[str, Any]
    error: str | None
    error_expected: bool
    attempts: int
    cancel_requested: bool
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker_id: str | None
    folder: Path
    annotation: Annotation = Annotation()

    @property
    def active(self) -> bool:
        """Whether the job may still change by itself."""
        return self.state in ACTIVE_STATES

    @property
    def retryable(self) -> bool:
        """Whether `retry` would make it runnable again."""
        return self.state in RETRYABLE_STATES

    @property
    def log_path(self) -> Path:
        """File of the job's log and of everything it printed."""
        return self.folder / "log.txt"

    @property
    def checkpoint_folder(self) -> Path:
        """Files from which a later attempt resumes; kept until the job succeeds."""
        return self.folder / "checkpoints"

    @property
    def duration_seconds(self) -> float | None:
        """Seconds since the latest attempt started, up to its end; None before it starts."""
        if self.started_at is None:
            return None
        return ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds()


@dataclass(frozen=True, kw_only=True)
class JobGroup:
    """Jobs that were queued together under one name, in that order."""

    id: str
    name: str
    job_ids: tuple[str, ...]


class MetricRow(NamedTuple):
    """One point of one curve; NaN is stored as NaN."""

    step: int
    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class WorkerRecord:
    """One worker process. beat_at: its latest heartbeat."""

    id: str
    pid: int
    host: str
    code_version: str
    started_at: datetime
    beat_at: datetime
