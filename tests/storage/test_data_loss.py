"""No artifact is removed because the database is another one, and the database of a home is never replaced silently.

Each situation was seen to delete every artifact folder older than an hour, or is the neighbour of one that did.
"""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ctrlab.errors import StorageError
from ctrlab.storage import Artifact, NewArtifact, Store
from ctrlab.storage.trash import KEEP
from tests.support.worker_support import ROOT

AT_ONCE = -1.0  # seconds: everything counts as old enough

#: Adds an artifact and dies, as by kill -9, between the move of its folder and the writing of its row.
KILLED_WHILE_ADDING = """
import os, sys
from pathlib import Path
from ctrlab.storage import NewArtifact, Store
store = Store.open(Path(sys.argv[1]))
store.database.write = lambda: os._exit(9)
store.artifacts.add(NewArtifact("model", "half", files_from=Path(sys.argv[2])))
"""


def made_files(folder: Path) -> Path:
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"weights")
    return folder


def added(store: Store, scratch: Path, name: str = "DeepFM") -> Artifact:
    return store.artifacts.add(NewArtifact("model", name, files_from=made_files(scratch / f"made {name}")))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one model in its SQLite store."""
    store = Store.open(tmp_path / "home")
    added(store, tmp_path)
    store.close()
    return tmp_path / "home"


def folders(home: Path) -> list[str]:
    return sorted(folder.name for folder in (home / "artifacts").iterdir())


def killed_while_adding(home: Path, scratch: Path) -> str:
    """The name of a folder that has no row because its process was killed."""
    before = folders(home)
    script = [sys.executable, "-c", KILLED_WHILE_ADDING, str(home), str(made_files(scratch / "half"))]
    assert subprocess.run(script, cwd=ROOT).returncode == 9
    (orphan,) = set(folders(home)) - set(before)
    return orphan


def test_an_empty_database_at_another_address_is_refused_and_removes_nothing(home: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    with pytest.raises(StorageError, match="missing or empty; put the database back"):
        Store.open(home, url)
    assert not (tmp_path / "empty.sqlite3").exists()
    assert len(folders(home)) == 1


def test_the_store_of_another_home_is_refused_and_removes_nothing(home: Path, tmp_path: Path) -> None:
    other = Store.open(tmp_path / "other")
    other.close()
    with pytest.raises(StorageError, match=r"is the store .*; correct CTRLAB_STORE_URL or CTRLAB_HOME"):
        Store.open(home, f"sqlite:///{tmp_path / 'other' / 'ctrlab.sqlite3'}")
    assert len(folders(home)) == 1


@pytest.mark.parametrize("emptied", [False, True], ids=["moved aside", "of 0 bytes"])
def test_a_lost_database_is_refused_and_no_new_one_is_made_in_its_place(home: Path, emptied: bool) -> None:
    database = home / "ctrlab.sqlite3"
    kept = shutil.copy(database, home / "aside.sqlite3")
    database.write_bytes(b"") if emptied else database.unlink()
    with pytest.raises(StorageError, match=r"belong to the store .* missing or empty"):
        Store.open(home)
    assert not database.exists() or database.stat().st_size == 0
    shutil.copy(kept, database)
    store = Store.open(home)
    assert [artifact.path.is_dir() for artifact in store.artifacts.list()] == [True]
    store.close()


def test_a_new_store_beside_the_files_of_a_lost_one_removes_none_of_them(home: Path, tmp_path: Path) -> None:
    of_the_lost_store = [*folders(home), killed_while_adding(home, tmp_path)]
    (home / "ctrlab.sqlite3").unlink()
    (home / "store-id").unlink()  # what the refusal says one may do
    store = Store.open(home)
    assert store.artifacts.sweep(AT_ONCE) == ()
    added(store, tmp_path, "of the new store")
    assert store.artifacts.sweep(AT_ONCE) == ()
    assert set(of_the_lost_store) <= set(folders(home))
    assert set(store.artifacts.unknown_folders()) == set(of_the_lost_store)
    store.close()


def test_an_older_backup_put_back_removes_nothing_that_was_made_after_it(home: Path, tmp_path: Path) -> None:
    backup = shutil.copy(home / "ctrlab.sqlite3", tmp_path / "backup.sqlite3")
    store = Store.open(home)
    later = added(store, tmp_path, "after the backup")
    store.close()
    shutil.copy(backup, home / "ctrlab.sqlite3")
    store = Store.open(home)
    assert [artifact.name for artifact in store.artifacts.list()] == ["DeepFM"]
    assert store.artifacts.sweep(AT_ONCE) == ()
    added(store, tmp_path, "after it was put back")  # a row that is newer than the folder changes nothing
    assert store.artifacts.sweep(AT_ONCE) == ()
    assert store.artifacts.unknown_folders() == (later.id,)
    store.close()


def test_an_emptied_catalogue_sweeps_nothing_and_keeps_the_record_of_the_orphan(tmp_path: Path) -> None:
    Store.open(tmp_path / "home").close()
    orphan = killed_while_adding(tmp_path / "home", tmp_path)
    store = Store.open(tmp_path / "home")
    assert store.artifacts.sweep(AT_ONCE) == ()
    assert folders(tmp_path / "home") == [orphan]
    added(store, tmp_path)
    assert [entry.name for entry in store.artifacts.sweep(AT_ONCE)] == [orphan]
    store.close()


def test_the_folder_of_a_killed_addition_goes_to_the_trash_with_its_files(home: Path, tmp_path: Path) -> None:
    kept = folders(home)
    orphan = killed_while_adding(home, tmp_path)
    store = Store.open(home)
    assert store.artifacts.sweep() == ()  # younger than an hour
    (entry,) = store.artifacts.sweep(AT_ONCE)
    assert (entry.name, entry.size_bytes, entry.path.parent) == (orphan, 7, home / "trash")
    assert (entry.path / "weights.bin").read_bytes() == b"weights"
    assert folders(home) == kept
    assert store.artifacts.sweep(AT_ONCE) == ()
    store.close()


def test_an_addition_under_way_is_not_swept_however_long_it_takes(home: Path, tmp_path: Path) -> None:
    store, sweeper = Store.open(home), Store.open(home)
    write = store.database.write

    def sweep_first() -> object:
        assert sweeper.artifacts.sweep(AT_ONCE) == ()
        return write()

    store.database.write = sweep_first  # type: ignore[method-assign, assignment]
    artifact = added(store, tmp_path, "slow")
    assert (artifact.path / "weights.bin").is_file()
    assert sweeper.artifacts.sweep(AT_ONCE) == ()
    store.close()
    sweeper.close()


def test_the_trash_is_emptied_after_thirty_days_of_what_was_put_there(home: Path, tmp_path: Path) -> None:
    orphan = killed_while_adding(home, tmp_path)
    store = Store.open(home)
    removed_at = datetime(2026, 11, 30, 12, tzinfo=UTC)
    (entry,) = store.artifacts.sweep(AT_ONCE, now=removed_at)
    (home / "trash" / "notes").mkdir()
    assert store.trash.entries() == [entry]
    assert store.trash.purge(removed_at + KEEP) == []
    assert [gone.name for gone in store.trash.purge(removed_at + KEEP + timedelta(seconds=1))] == [orphan]
    assert [path.name for path in (home / "trash").iterdir()] == ["notes"]
    store.close()


def test_a_row_whose_commit_was_not_answered_gets_its_files_when_the_job_adds_it_again(home: Path, tmp_path: Path) -> None:
    store = Store.open(home)
    job = store.jobs.submit("train", "Train", {})
    without_files = store.artifacts.add(NewArtifact("model", "DeepFM"), job_id=job.id)
    again = store.artifacts.add(NewArtifact("model", "DeepFM", files_from=made_files(tmp_path / "again")), job_id=job.id)
    assert again == without_files
    assert (again.path / "weights.bin").is_file()
    store.close()


@pytest.mark.parametrize("name", ["we?ird", "100%", "a b#c", "%20"])
def test_any_character_in_a_homes_path_leaves_the_database_inside_it(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    store = Store.open(home)
    store.artifacts.add(NewArtifact("dataset", "ads"))
    store.close()
    assert (home / "ctrlab.sqlite3").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
    again = Store.open(home)
    assert [artifact.name for artifact in again.artifacts.list()] == ["ads"]
    again.close()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_home_and_what_is_in_it_belong_to_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = Store.open(tmp_path / "home")
        added(store, tmp_path)
    finally:
        os.umask(before)
    home = tmp_path / "home"
    assert mode(home) == 0o700
    assert {mode(path) for path in home.iterdir() if path.is_dir()} == {0o700}
    assert {mode(path) for path in home.iterdir() if path.is_file()} == {0o600}
    store.close()


def test_a_home_open_to_others_is_narrowed_with_a_line_in_the_log(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    home.chmod(0o755)
    (home / "jobs").chmod(0o755)
    Store.open(home).close()
    assert (mode(home), mode(home / "jobs")) == (0o700, 0o700)
    assert f"{home} was open to other users of this machine (mode 755); its mode is now 700" in caplog.text
    caplog.clear()
    Store.open(home).close()
    assert caplog.text == ""


def test_a_shared_folder_keeps_its_mode_as_a_home_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    Store.open(tmp_path / "shared").close()
    assert (tmp_path / "shared").stat().st_mode & 0o7777 == 0o1777
    assert "cannot be made private" in caplog.text
    assert mode(tmp_path / "shared" / "artifacts") == 0o700
