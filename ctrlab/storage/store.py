"""A home folder and its database: all state of ctrlab."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from ctrlab.errors import StorageError
from ctrlab.storage.annotations import Annotations
from ctrlab.storage.artifacts import ArtifactCatalogue
from ctrlab.storage.clock import Clock, utc_now
from ctrlab.storage.database import BUSY_SECONDS, Database
from ctrlab.storage.deletion import Deletions
from ctrlab.storage.groups import JobGroups
from ctrlab.storage.home import check_store_id, home_store_id, prepare_home, record_store_id
from ctrlab.storage.jobs import LEASE_SECONDS, JobQueue
from ctrlab.storage.metrics import MetricLog
from ctrlab.storage.pending import PendingChanges
from ctrlab.storage.trash import Trash
from ctrlab.storage.workers import WorkerRegistry

DATABASE_FILE = "ctrlab.sqlite3"


@dataclass(frozen=True, kw_only=True)
class Store:
    """Artifacts, jobs, metrics and workers of one home folder. May be used from several threads and processes at once."""

    home: Path
    database: Database
    artifacts: ArtifactCatalogue
    annotations: Annotations
    trash: Trash
    deletions: Deletions
    groups: JobGroups
    jobs: JobQueue
    metrics: MetricLog
    workers: WorkerRegistry

    @classmethod
    def open(
        cls,
        home: Path,
        url: str | None = None,
        *,
        lease_seconds: float = LEASE_SECONDS,
        busy_seconds: float = BUSY_SECONDS,
        now: Clock = utc_now,
    ) -> Self:
        """Open the store in `home`, creating it if it is not there.

        Args:
            home: folder of artifacts, job folders and, by default, the database.
            url: SQLAlchemy address of another database, SQLite or PostgreSQL. Processes that share it must share `home`.
            lease_seconds: a worker on another machine that renews no lease for this long loses its jobs.
            busy_seconds: how long a statement waits for another process's write to end (SQLite).
            now: the clock of jobs, leases and workers.

        Raises:
            StorageError: the folder or database cannot be used, is of another version, or is not the one that the home's
                files belong to (moved aside, emptied, or another address).
            ConfigError: the address is not one of a store.
        """
        home = home.expanduser().absolute()
        prepare_home(home)
        database = Database(url or sa.URL.create("sqlite", database=str(home / DATABASE_FILE)), busy_seconds=busy_seconds)
        store_id = _open_database(database, home)
        workers = WorkerRegistry(database, home / "workers", now)
        trash, pending = Trash(home / "trash"), PendingChanges(home / "pending", store_id)
        return cls(
            home=home,
            database=database,
            artifacts=ArtifactCatalogue(database, home / "artifacts", pending, trash),
            annotations=Annotations(database),
            trash=trash,
            deletions=Deletions(database, home, pending, trash, now),
            groups=JobGroups(database),
            jobs=JobQueue(database, home / "jobs", workers, lease_seconds, now),
            metrics=MetricLog(database),
            workers=workers,
        )

    def close(self) -> None:
        """Close the connections; the store can be opened again."""
        self.database.close()


def _open_database(database: Database, home: Path) -> str:
    """Prepare the database and return the store's id. A home that belongs to another store is refused before one is created."""
    expected = home_store_id(home)
    try:
        if expected is not None and not database.exists():
            check_store_id(home, expected, None, str(database))
        database.prepare()
        store_id = database.store_id()
        check_store_id(home, expected, store_id, str(database))
    except StorageError:
        database.close()
        raise
    if expected is None:
        record_store_id(home, store_id)
    return store_id
