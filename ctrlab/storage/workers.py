"""Worker registry and liveness."""

import os
import secrets
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ctrlab.storage import schema
from ctrlab.storage.clock import Clock, utc_now
from ctrlab.storage.code_version import code_version
from ctrlab.storage.database import Database
from ctrlab.storage.locks import FileLock, is_locked
from ctrlab.storage.records import WorkerRecord

#: A worker on another machine without a heartbeat for this long counts as dead.
SILENT_SECONDS = 30.0

_table = schema.workers


class WorkerRegistry:
    """The workers of a store. Each holds a file lock while it lives; the kernel releases it however the worker ends."""

    def __init__(self, database: Database, root: Path, now: Clock = utc_now) -> None:
        self._database = database
        self._root = root
        self._now = now

    def new_id(self) -> str:
        """A new id, of this host and process."""
        return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"

    def hold(self, worker_id: str) -> FileLock:
        """Acquire the lock that `worker_id` must hold from before its first claim to its end."""
        lock = FileLock(self._root / "starting" / worker_id)
        lock.acquire()
        # Visible under its name only once it is locked: a process that tests it never finds a living worker unlocked.
        lock.path = lock.path.rename(self._path(worker_id))
        return lock

    def election_lock(self) -> FileLock:
        """The lock of the home folder: the process that holds it is the home's worker."""
        return FileLock(self._root / "worker")

    def heartbeat(self, worker_id: str, pid: int) -> None:
        """Record that the worker is alive; the first call registers it."""
        now = self._now()
        with self._database.write() as connection:
            if connection.execute(sa.update(_table).where(_table.c.id == worker_id).values(beat_at=now)).rowcount == 0:
                values = {"id": worker_id, "pid": pid, "host": socket.gethostname(), "code_version": code_version()}
                connection.execute(sa.insert(_table).values(**values, started_at=now, beat_at=now))

    def alive(self) -> list[WorkerRecord]:
        """Living workers: those of this machine by their file locks, others by their latest heartbeat."""
        oldest = self._now() - timedelta(seconds=SILENT_SECONDS)
        with self._database.read() as connection:
            rows = connection.execute(sa.select(_table).order_by(_table.c.started_at)).all()
        return [_record(row) for row in rows if row.beat_at > oldest and not self.is_known_dead(row.id)]

    def is_known_dead(self, worker_id: str) -> bool:
        """Whether the worker ran on this machine and has died; False for workers of other machines."""
        path = self._path(worker_id)
        return path.exists() and not is_locked(path)

    def forget(self, worker_id: str) -> None:
        """Remove a stopped or dead worker, whose jobs must have been released or taken over."""
        with self._database.write() as connection:
            connection.execute(sa.delete(_table).where(_table.c.id == worker_id))
        self._path(worker_id).unlink(missing_ok=True)

    def forget_dead(self) -> None:
        """Remove rows and lock files of dead workers of this machine; call `JobQueue.reap_expired` first."""
        with self._database.read() as connection:
            known = list(connection.execute(sa.select(_table.c.id)).scalars())
            busy = set(connection.execute(sa.select(schema.jobs.c.worker_id).where(schema.jobs.c.state == "running")).scalars())
        remaining = {path.name for path in self._root.glob("*-*-*")} | set(known)
        for worker_id in remaining - busy:
            if self.is_known_dead(worker_id):
                self.forget(worker_id)

    def _path(self, worker_id: str) -> Path:
        return self._root / worker_id


def _record(row: sa.Row[Any]) -> WorkerRecord:
    return WorkerRecord(
        id=row.id, pid=row.pid, host=row.host, code_version=row.code_version, started_at=row.started_at, beat_at=row.beat_at
    )
