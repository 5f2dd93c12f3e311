"""The job queue: one table with the state, owner, progress and outcome of every job.

    queued -> running -> succeeded | failed | cancelled | interrupted

Every change names the state it starts from in its WHERE clause, so of two processes that want the same job one gets it.
A running job belongs to (worker_id, attempts) until its lease expires; writes of any other attempt change nothing. A dead worker
is noticed at once on its own machine, where the kernel has released its file lock, and elsewhere when its lease expires.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from ctrlab.errors import ConfigError, StorageError, UnknownNameError
from ctrlab.storage import annotations, schema
from ctrlab.storage.clock import Clock, utc_now
from ctrlab.storage.database import Database
from ctrlab.storage.records import MAX_NAME_LENGTH, RETRYABLE_STATES, Annotation, Job, JobState
from ctrlab.storage.workers import WorkerRegistry

#: A worker on another machine that renews no lease for this long loses its jobs.
LEASE_SECONDS = 30.0
#: A job whose worker has died this often is interrupted and not queued again: the job may be the cause.
MAX_LOST_WORKERS = 3

EndState = Literal["succeeded", "failed", "cancelled", "interrupted"]

_Jobs = list[Job]  # inside the class, `list` is its method
_NO_ANNOTATION = Annotation()
_table = schema.jobs
_SELECT = sa.select(_table, *annotations.COLUMNS).select_from(annotations.annotated(_table))
_RELEASED = {"worker_id": None, "lease_expires_at": None, "eta_seconds": None}


class Lease(NamedTuple):
    """State of a running job's lease: whether it is still this worker's, and whether the job should stop."""

    owned: bool
    cancel_requested: bool


class JobQueue:
    """Jobs by id, and the order in which they run. now: the clock of queue and leases."""

    def __init__(
        self, database: Database, root: Path, workers: WorkerRegistry, lease_seconds: float = LEASE_SECONDS, now: Clock = utc_now
    ) -> None:
        self._database = database
        self._root = root
        self._workers = workers
        self._lease = timedelta(seconds=lease_seconds)
        self._now = now

    # Called by services

    def submit(self, kind: str, title: str, config: Mapping[str, Any]) -> Job:
        """Put a new job at the end of the queue."""
        now = self._now()
        job_id = f"job-{secrets.token_hex(4)}"
        values = {
            "id": job_id, "kind": kind, "title": title, "config": dict(config), "state": "queued", "progress": 0.0,
            "message": "waiting", "result": {}, "error_expected": False, "attempts": 0, "lost_workers": 0,
            "cancel_requested": False, "created_at": now, "queued_at": now,
        }  # fmt: skip
        (self._root / job_id).mkdir(parents=True, exist_ok=True)
        with self._database.write() as connection:
            connection.execute(sa.insert(_table).values(**values))
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """The job with this id; UnknownNameError when there is none."""
        with self._database.read() as connection:
            row = connection.execute(_SELECT.where(_table.c.id == job_id)).first()
        if row is None:
            raise UnknownNameError(f"no job is called {job_id!r}; see the list of jobs")
        return self._record(row, annotations.annotation_of(row))

    def list(self, limit: int | None = None, states: Iterable[JobState] | None = None) -> _Jobs:
        """Newest first; only those in one of `states` when given."""
        statement = _SELECT.order_by(_table.c.sequence.desc()).limit(limit)
        if states is not None:
            statement = statement.where(_table.c.state.in_(tuple(states)))
        with self._database.read() as connection:
            return [self._record(row, annotations.annotation_of(row)) for row in connection.execute(statement)]

    def count(self, state: JobState) -> int:
        """How many jobs are in `state`."""
        with self._database.read() as connection:
            return connection.execute(sa.select(sa.func.count()).where(_table.c.state == state)).scalar_one()

    def rename(self, job_id: str, title: str) -> Job:
        """Change the displayed title; ids never change."""
        if not 0 < len(title.strip()) <= MAX_NAME_LENGTH:
            raise ConfigError(f"a job's title must have 1 to {MAX_NAME_LENGTH} characters, got {len(title.strip())}")
        with self._database.write() as connection:
            connection.execute(sa.update(_table).where(_table.c.id == job_id).values(title=title.strip()))
        return self.get(job_id)

    def request_cancel(self, job_id: str) -> Job:
        """Cancel a queued job at once, set the flag of a running one, and leave one that ended as it is."""
        ended = self._ended("cancelled") | {"message": "cancelled before it started", "cancel_requested": True}
        if not self._change(job_id, ("queued",), ended):
            self._change(job_id, ("running",), {"cancel_requested": True})
        return self.get(job_id)

    def retry(self, job_id: str) -> Job:
        """Put a job that failed, was cancelled or was interrupted back into the queue; its checkpoints are kept.

        Raises:
            StorageError: the job is in another state.
        """
        values = {
            "state": "queued", "message": "waiting to continue", "queued_at": self._now(), "started_at": None,
            "finished_at": None, "error": None, "error_expected": False, "cancel_requested": False, "lost_workers": 0,
            **_RELEASED,
        }  # fmt: skip
        if not self._change(job_id, RETRYABLE_STATES, values):
            state = self.get(job_id).state
            raise StorageError(f"{job_id} is {state}; only a job that is {', '.join(RETRYABLE_STATES)} can be retried")
        return self.get(job_id)

    # Called by workers

    def claim(self, worker_id: str, job_id: str | None = None, giving_way: Sequence[str] = ()) -> Job | None:
        """Mark the job that has waited longest (or the named one, if it is queued) as running and return it; None without one.

        Jobs of the kinds `giving_way` come after all others.
        """
        waiting = _table.alias("waiting")
        first = sa.select(waiting.c.sequence).where(waiting.c.state == "queued")
        if job_id is not None:
            first = first.where(waiting.c.id == job_id)
        first = (
            first.order_by(waiting.c.kind.in_(giving_way), waiting.c.queued_at, waiting.c.sequence)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        now = self._now()
        statement = (
            sa.update(_table)
            .where(_table.c.sequence == first.scalar_subquery(), _table.c.state == "queued")
            .values(
                state="running", worker_id=worker_id, lease_expires_at=now + self._lease, attempts=_table.c.attempts + 1,
                started_at=now, message="starting", cancel_requested=False,
            )
            .returning(_table)
        )  # fmt: skip
        if not self.any_queued():  # an idle worker never takes the write lock
            return None
        with self._database.write() as connection:
            row = connection.execute(statement).first()
        return None if row is None else self._record(row)

    def any_queued(self, without: Sequence[str] = ()) -> bool:
        """Whether a job waits, of the kinds `without` not counted."""
        queued = sa.select(_table.c.id).where(_table.c.state == "queued", _table.c.kind.not_in(without)).limit(1)
        with self._database.read() as connection:
            return connection.execute(queued).first() is not None

    def heartbeat(self, jobs: Sequence[Job]) -> dict[str, Lease]:
        """Renew the leases of running jobs; job id -> state of its lease."""
        if not jobs:
            return {}
        with self._database.write() as connection:
            return {job.id: self._touch(connection, job, {"lease_expires_at": self._now() + self._lease}) for job in jobs}

    def watch(self, jobs: Sequence[Job]) -> dict[str, Lease]:
        """The states that `heartbeat` returns, without renewing the leases."""
        columns = _table.c.id, _table.c.state, _table.c.worker_id, _table.c.attempts, _table.c.cancel_requested
        with self._database.read() as connection:
            rows = connection.execute(sa.select(*columns).where(_table.c.id.in_([job.id for job in jobs]))).all()
        found = {row.id: row for row in rows}
        return {job.id: _lease_of(job, found.get(job.id)) for job in jobs}

    def report(self, job: Job, progress: float, message: str, eta_seconds: float | None = None) -> Lease:
        """Write the progress of a running job, 0 to 1."""
        progress = min(max(float(progress), 0.0), 1.0)
        with self._database.write() as connection:
            return self._touch(connection, job, {"progress": progress, "message": message, "eta_seconds": eta_seconds})

    def finish(
        self,
        job: Job,
        state: EndState,
        *,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
        error_expected: bool = False,
        message: str | None = None,
    ) -> bool:
        """Record how a running job ended; False when the job no longer belongs to this attempt."""
        values = self._ended(state) | {"result": dict(result or {}), "error": error, "error_expected": error_expected}
        if state == "succeeded":
            values["progress"] = 1.0
        if message is not None:
            values["message"] = message
        with self._database.write() as connection:
            return self._touch(connection, job, values).owned

    def release(self, job: Job) -> bool:
        """Return a running job to its old place in the queue because its worker stops; cancel it if that was requested."""
        queued = {"state": "queued", "message": "waiting for a worker to continue", **_RELEASED}
        with self._database.write() as connection:
            lease = self._touch(connection, job, {"lease_expires_at": self._now()})  # holds the row until the next statement
            ended = self._ended("cancelled") | {"message": "cancelled"}
            return self._touch(connection, job, ended if lease.cancel_requested else queued).owned

    def reap_expired(self) -> _Jobs:
        """Take running jobs from dead workers; the jobs that changed.

        A job with a cancel request is cancelled, one whose workers died too often is interrupted, any other is queued again.
        """
        now = self._now()
        with self._database.read() as connection:
            running = connection.execute(sa.select(_table).where(_table.c.state == "running")).all()
        lost = [row for row in running if row.lease_expires_at < now or self._workers.is_known_dead(row.worker_id)]
        return [self.get(row.id) for row in lost if self._take_from_dead(row)]

    def _take_from_dead(self, row: sa.Row[Any]) -> bool:
        lost = row.lost_workers + 1
        if row.cancel_requested:
            values = self._ended("cancelled") | {"message": "cancelled; its worker had died"}
        elif lost >= MAX_LOST_WORKERS:
            error = (
                f"its worker died {lost} times while it ran, perhaps because memory ran out; read the job's log, "
                "then retry to continue from the last checkpoint"
            )
            values = self._ended("interrupted") | {"message": "interrupted", "error": error, "error_expected": True}
        else:
            values = {"state": "queued", "message": "its worker died; waiting to continue", **_RELEASED}
        unchanged = (_table.c.attempts == row.attempts, _table.c.lease_expires_at == row.lease_expires_at)
        return self._change(row.id, ("running",), values | {"lost_workers": lost}, *unchanged)

    def _touch(self, connection: sa.Connection, job: Job, values: Mapping[str, Any]) -> Lease:
        """Change a running job if it still belongs to the attempt in `job`."""
        mine = (_table.c.id == job.id, _table.c.state == "running", _table.c.worker_id == job.worker_id)
        statement = sa.update(_table).where(*mine, _table.c.attempts == job.attempts).values(**values)
        row = connection.execute(statement.returning(_table.c.cancel_requested)).first()
        return Lease(False, False) if row is None else Lease(True, row.cancel_requested)

    def _change(
        self, job_id: str, states: Sequence[JobState], values: Mapping[str, Any], *conditions: sa.ColumnElement[bool]
    ) -> bool:
        statement = sa.update(_table).where(_table.c.id == job_id, _table.c.state.in_(states), *conditions).values(**values)
        with self._database.write() as connection:
            return connection.execute(statement).rowcount == 1

    def _ended(self, state: EndState) -> dict[str, Any]:
        return {"state": state, "finished_at": self._now(), **_RELEASED}

    def _record(self, row: sa.Row[Any], annotation: Annotation = _NO_ANNOTATION) -> Job:
        return Job(
            id=row.id, kind=row.kind, title=row.title, config=row.config, state=row.state, progress=float(row.progress),
            message=row.message, eta_seconds=row.eta_seconds, result=row.result, error=row.error,
            error_expected=row.error_expected, attempts=row.attempts, cancel_requested=row.cancel_requested,
            created_at=row.created_at, queued_at=row.queued_at, started_at=row.started_at, finished_at=row.finished_at,
            worker_id=row.worker_id, folder=self._root / row.id, annotation=annotation,
        )  # fmt: skip


def _lease_of(job: Job, row: Any) -> Lease:
    owned = row is not None and (row.state, row.worker_id, row.attempts) == ("running", job.worker_id, job.attempts)
    return Lease(owned, bool(owned and row is not None and row.cancel_requested))
