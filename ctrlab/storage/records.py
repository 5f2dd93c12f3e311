"""What the store hands out: frozen records, never live database rows."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

ArtifactKind = Literal["dataset", "model", "spectra", "sensitivity", "speed", "plan", "evaluation"]
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]

#: Each kind's prefix of an artifact id, such as "ds-0f3a9c2e".
ID_PREFIXES: dict[str, str] = {
    "dataset": "ds", "model": "model", "spectra": "spectra", "sensitivity": "sens", "speed": "speed", "plan": "plan",
    "evaluation": "eval",
}  # fmt: skip
#: A job in one of these states may still change by itself.
ACTIVE_STATES: tuple[JobState, ...] = ("queued", "running")
#: A job in one of these states can be made runnable again.
RETRYABLE_STATES: tuple[JobState, ...] = ("failed", "cancelled", "interrupted")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One result worth keeping: what it is, what it was made from and how, and where its files are.

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


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of background work and how far it is.

    progress: 0 to 1. eta_seconds: what is left, None when not known yet.
    result: kind of artifact -> artifact id. error_expected: `error` is a sentence for the user, not a bug of ours.
    attempts: how often it was started; with `worker_id` it tells who may write to a running job.
    folder: log.txt, and checkpoints/ from which a killed attempt resumes.
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
        """Where the job's own log and everything it printed are."""
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


class MetricRow(NamedTuple):
    """One point of one curve; a NaN value is kept as NaN."""

    step: int
    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class WorkerRecord:
    """One worker process that says it is alive."""

    id: str
    pid: int
    host: str
    code_version: str
    started_at: datetime
    beat_at: datetime
