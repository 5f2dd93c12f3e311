"""The workspace's own files are refused as input before they are opened, by whatever name they are given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrlab.data.configs import SourceConfig
from ctrlab.errors import DataError
from ctrlab.services import datasets, models
from ctrlab.services.paths import input_path
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.storage import NewArtifact

#: Succeeds only if no other process holds the shared lock by which SQLite counts the users of its write-ahead log.
TAKE_LOCK = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)"


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return open_workspace(tmp_path / "home")


def spellings(file: Path, folder: Path) -> list[Path]:
    """Other names of a file: through `..`, a symbolic link, a linked folder and a hard link."""
    folder.mkdir()
    (folder / "link.csv").symlink_to(file)
    (folder / "linked").symlink_to(file.parent)
    os.link(file, folder / "hard.csv")
    return [
        file,
        file.parent / ".." / file.parent.name / file.name,
        folder / "link.csv",
        folder / "linked" / file.name,
        folder / "hard.csv",
    ]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_the_database_is_refused_under_every_name(workspace, tmp_path, suffix):
    with workspace.store.database.read():
        database = Path(f"{workspace.store.database.file}{suffix}")
        for path in spellings(database, tmp_path / "elsewhere"):
            with pytest.raises(DataError, match=f"{path.name} is one of ctrlab's own files"):
                input_path(workspace, path)
            with pytest.raises(DataError, match="ctrlab's own files"):
                input_path(workspace, path, uploaded=True)


@pytest.mark.parametrize("address", ["sqlite:///{}", "sqlite:///file:{}?uri=true"])
def test_a_database_outside_the_home_is_refused_too(tmp_path, address):
    database = tmp_path / "outside" / "store.sqlite3"
    database.parent.mkdir()
    workspace = open_workspace(tmp_path / "home", address.format(database))
    for path in spellings(database, tmp_path / "elsewhere"):
        with pytest.raises(DataError, match="ctrlab's own files"):
            input_path(workspace, path)


def test_every_file_of_the_home_is_refused_and_files_outside_are_not(workspace, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "model.safetensors").write_text("x")
    model = workspace.store.artifacts.add(NewArtifact("model", "m", files_from=tmp_path / "source"))
    for path in spellings(model.path / "model.safetensors", tmp_path / "elsewhere"):
        with pytest.raises(DataError, match="ctrlab's own files"):
            input_path(workspace, path)
    (tmp_path / "a.csv").write_text("x")
    os.link(tmp_path / "a.csv", tmp_path / "b.csv")
    assert input_path(workspace, tmp_path / "b.csv") == tmp_path / "b.csv"
    assert input_path(workspace, tmp_path / "missing.csv") == tmp_path / "missing.csv"


def test_uploads_are_allowed_where_they_are_expected_and_refused_as_typed_paths(workspace):
    upload = workspace.home / "uploads" / "a.csv"
    upload.parent.mkdir()
    upload.write_text("x")
    assert input_path(workspace, upload, uploaded=True) == upload
    with pytest.raises(DataError, match="own files"):
        input_path(workspace, upload)
    (upload.parent / "link.csv").symlink_to(workspace.home / "ctrlab.sqlite3")
    with pytest.raises(DataError, match="own files"):
        input_path(workspace, upload.parent / "link.csv", uploaded=True)


def test_a_path_with_a_nul_character_is_one_sentence(workspace):
    with pytest.raises(DataError, match="NUL character"):
        input_path(workspace, "/tmp/a\0b.csv")


def test_trying_to_open_the_database_by_every_way_leaves_the_process_its_locks(workspace, tmp_path):
    def locked() -> bool:
        command = [sys.executable, "-c", TAKE_LOCK, f"{database}-shm"]
        return subprocess.run(command, capture_output=True, check=False).returncode != 0

    dataset = workspace.store.artifacts.add(NewArtifact("dataset", "d", summary={"fingerprint": "f"}))
    database = workspace.store.database.file
    with workspace.store.database.read():
        assert locked()
        for path in spellings(database, tmp_path / "elsewhere"):
            source = SourceConfig(paths=(str(path),))
            for attempt in (
                lambda source=source: datasets.inspect_source(source, workspace=workspace),
                lambda source=source: datasets.inspect_source_in_child(workspace, source),
                lambda path=path: models.import_checkpoint(workspace, dataset.id, path),
                lambda path=path: models.import_checkpoint(workspace, dataset.id, path, in_child=True),
            ):
                with pytest.raises(DataError, match="own files"):
                    attempt()
        assert locked()


def test_jobs_refuse_the_workspaces_own_files(workspace, table_config):
    config = table_config(str(workspace.store.database.file))
    with pytest.raises(DataError, match="own files"):
        datasets.submit_encode(workspace, config)
    assert not workspace.store.jobs.list()


@pytest.fixture
def table_config():
    from ctrlab.data.configs import ColumnConfig, DatasetConfig

    columns = (ColumnConfig(name="click", role="label"), ColumnConfig(name="site", role="categorical"))
    return lambda path: DatasetConfig(name="t", source=SourceConfig(paths=(path,)), columns=columns)
