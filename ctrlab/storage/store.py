"""A home folder and its database: everything ctrlab remembers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ctrlab.errors import StorageError
from ctrlab.storage.artifacts import ArtifactCatalogue
from ctrlab.storage.database import Database
from ctrlab.storage.jobs import LEASE_SECONDS, JobQueue
from ctrlab.storage.metrics import MetricLog
from ctrlab.storage.workers import WorkerRoster

DATABASE_FILE = "ctrlab.sqlite3"


@dataclass(frozen=True, kw_only=True)
class Store:
    """Artifacts, jobs, metrics and workers of one home folder. May be used from several threads and processes at once."""

    home: Path
    database: Database
    artifacts: ArtifactCatalogue
    jobs: JobQueue
    metrics: MetricLog
    workers: WorkerRoster

    @classmethod
    def open(cls, home: Path, url: str | None = None, *, lease_seconds: float = LEASE_SECONDS) -> Self:
        """Open the store in `home`, made if it is not there.

        Args:
            home: folder of artifacts, job folders and, by default, the database.
            url: SQLAlchemy address of another database, SQLite or PostgreSQL. Processes that share it must share `home`.
            lease_seconds: silence after which a worker that cannot be seen from here loses its jobs.

        Raises:
            StorageError: the folder or database cannot be used, or is of another version.
            ConfigError: the address is not one of a store.
        """
        home = home.expanduser().absolute()
        _make_folders(home)
        database = Database(url or f"sqlite:///{home / DATABASE_FILE}")
        database.prepare()
        workers = WorkerRoster(database, home / "workers")
        return cls(
            home=home,
            database=database,
            artifacts=ArtifactCatalogue(database, home / "artifacts"),
            jobs=JobQueue(database, home / "jobs", workers, lease_seconds),
            metrics=MetricLog(database),
            workers=workers,
        )

    def close(self) -> None:
        """Close the connections; the store can be opened again."""
        self.database.close()


def _make_folders(home: Path) -> None:
    try:
        for name in ("artifacts", "jobs", "workers"):
            (home / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{home} cannot be used as home folder: {error.strerror}; choose another with CTRLAB_HOME") from error
