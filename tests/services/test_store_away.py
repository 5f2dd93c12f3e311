"""A store that is locked or away at the end of a job delays the end and loses nothing."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctrlab.config import Config, option
from ctrlab.errors import StorageError, StoreUnavailableError
from ctrlab.services.handlers import JOB_HANDLERS, JobContext
from ctrlab.services.jobs import job_log
from ctrlab.services.runner import run_job
from ctrlab.services.workspace import Workspace
from ctrlab.storage import NewArtifact, Store

LOCKED_SECONDS = 1.0


@JOB_HANDLERS.register("lock test", builder=f"{__name__}:lock_and_end", title="Lock test")
@dataclass(frozen=True, kw_only=True)
class LockConfig(Config):
    """Lock the store from another connection, before the artifact is added or after."""

    database: str
    before_adding: bool = option(False)


def lock_and_end(config: LockConfig, context: JobContext) -> dict[str, str]:
    files = context.folder / "model"
    files.mkdir(exist_ok=True)
    (files / "weights.bin").write_bytes(b"weights")
    if config.before_adding:
        lock_for_a_while(config.database)
    model = context.add_artifact(NewArtifact("model", "DeepFM", files_from=files))
    if not config.before_adding:
        lock_for_a_while(config.database)
    context.metric(1, loss=0.5)
    return {"model": model.id}


def lock_for_a_while(database: str) -> None:
    connection = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")

    def unlock() -> None:
        connection.rollback()
        connection.close()

    threading.Timer(LOCKED_SECONDS, unlock).start()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace whose statements wait a twentieth of a second for a lock instead of half a minute."""
    store = Store.open(tmp_path / "home", busy_seconds=0.05)
    yield Workspace(store.home, store)
    store.close()


@contextmanager
def locked(workspace: Workspace) -> Iterator[None]:
    connection = sqlite3.connect(workspace.home / "ctrlab.sqlite3", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.rollback()
    connection.close()


@pytest.mark.parametrize("before_adding", [True, False], ids=["before its artifact", "after its artifact"])
def test_a_job_whose_store_is_locked_at_its_end_succeeds_with_all_it_made(workspace: Workspace, before_adding: bool) -> None:
    config = LockConfig(database=str(workspace.home / "ctrlab.sqlite3"), before_adding=before_adding)
    job = run_job(workspace, workspace.store.jobs.submit("lock test", "Lock", config.to_dict()).id)
    assert (job.state, job.error) == ("succeeded", None)
    (model,) = workspace.store.artifacts.list()
    assert job.result == {"model": model.id}
    assert (model.path / "weights.bin").read_bytes() == b"weights"
    assert [row.value for row in workspace.store.metrics.read(job.id)] == [0.5]
    assert "database is locked" in job_log(workspace, job.id)


def test_a_locked_store_may_answer_later_and_a_damaged_one_may_not(workspace: Workspace, tmp_path: Path) -> None:
    with locked(workspace), pytest.raises(StoreUnavailableError, match="database is locked"):
        workspace.store.jobs.submit("train", "Train", {})
    with workspace.store.database.write() as connection:
        connection.exec_driver_sql("DROP TABLE metrics")
    with pytest.raises(StorageError, match="no such table") as caught:
        workspace.store.metrics.read("job-00000000")
    assert not isinstance(caught.value, StoreUnavailableError)


def test_waiting_for_a_locked_store_ends_when_the_job_is_cancelled(workspace: Workspace) -> None:
    config = LockConfig(database=str(workspace.home / "ctrlab.sqlite3"), before_adding=True)
    job_id = workspace.store.jobs.submit("lock test", "Lock", config.to_dict()).id
    assert run_job(workspace, job_id, should_stop=lambda: True).state == "cancelled"
    assert workspace.store.artifacts.list() == []


def test_waiting_for_a_store_ends_when_the_home_is_removed(workspace: Workspace) -> None:
    context = JobContext(workspace, workspace.store.jobs.submit("train", "Train", {}))
    workspace.home.rename(workspace.home.with_name("moved"))

    def write() -> None:
        raise StoreUnavailableError("unable to open database file")

    with pytest.raises(StoreUnavailableError):
        context.until_stored(write)
