"""Sizes by kind, and what can be freed: old checkpoints and uploads, the trash, files that are stored twice."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ctrlab.errors import ConfigError
from ctrlab.services import deletion, disk
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.storage import Artifact, Job, NewArtifact
from ctrlab.storage.folders import folder_bytes

CONTENT = os.urandom(20_000)
NOW = datetime.now(UTC)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.delenv("CTRLAB_STORE_URL", raising=False)
    workspace = open_workspace(tmp_path / "home")
    yield workspace
    workspace.store.close()


def add(workspace: Workspace, content: bytes, *files: str) -> Artifact:
    folder = workspace.home / "made"
    folder.mkdir()
    for name in files:
        (folder / name).write_bytes(content)
    return workspace.store.artifacts.add(NewArtifact("model", "DeepFM", files_from=folder))


def ended(workspace: Workspace, state: str, path: str = "") -> Job:
    """A job in `state` with 50 bytes of checkpoints."""
    jobs = workspace.store.jobs
    job = jobs.submit("encode", state, {"source": {"paths": [path]}})
    running = jobs.claim("worker", job.id)
    assert running
    jobs.finish(running, state)  # type: ignore[arg-type]
    job.checkpoint_folder.mkdir()
    (job.checkpoint_folder / "state").write_bytes(b"x" * 50)
    return jobs.get(job.id)


def upload(workspace: Workspace, name: str, age: timedelta = timedelta(0)) -> Path:
    path = workspace.home / "uploads" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"u" * 10)
    os.utime(path, ((NOW - age).timestamp(),) * 2)
    return path


def test_the_sizes_by_kind_add_up_to_the_home(workspace: Workspace) -> None:
    add(workspace, CONTENT, "model.safetensors")
    ended(workspace, "failed")
    upload(workspace, "log.csv")
    deletion.delete(workspace, [add(workspace, CONTENT, "model.safetensors").id])
    found = {use.kind: use for use in disk.disk_use(workspace)}
    assert (found["Models"].count, found["Models"].size_bytes, found["Checkpoints"].size_bytes) == (1, 20_000, 50)
    assert found["Trash"].size_bytes > 20_000 and found["Uploads"].size_bytes == 10
    assert sum(use.size_bytes for use in found.values()) == pytest.approx(folder_bytes(workspace.home), abs=50_000)


def test_clean_frees_what_no_result_needs_and_nothing_else(workspace: Workspace) -> None:
    became, failed, draft = (upload(workspace, name) for name in ("became.csv", "failed.csv", "draft.csv"))
    unused = upload(workspace, "unused.csv", timedelta(hours=7))
    ended(workspace, "succeeded", str(became))
    checkpoints = [ended(workspace, state, str(failed)).checkpoint_folder for state in ("failed", "cancelled", "interrupted")]
    active = workspace.store.jobs.submit("train", "Train", {})
    active.checkpoint_folder.mkdir()
    (active.checkpoint_folder / "state").write_bytes(b"needed")
    model, gone = add(workspace, CONTENT, "model.safetensors"), add(workspace, b"y" * 9000, "model.safetensors")
    deletion.delete(workspace, [gone.id])
    planned = {found.key: found for found in disk.freeable(workspace)}
    before = folder_bytes(workspace.home)
    done = {found.key: found for found in disk.clean(workspace)}
    assert done == planned
    assert set(done) == {"checkpoints", "uploads", "trash"}
    assert before - folder_bytes(workspace.home) == sum(found.size_bytes for found in done.values())
    assert not any(path.exists() for path in (became, unused, *checkpoints))
    assert all(path.exists() for path in (failed, draft, active.checkpoint_folder / "state", model.path / "model.safetensors"))
    assert disk.freeable(workspace) == []
    with pytest.raises(ConfigError, match="everything cannot be freed; choose from checkpoints, uploads, trash, duplicates"):
        disk.clean(workspace, ["everything"])


def test_equal_files_are_stored_once_and_each_survives_the_deletion_of_the_other(workspace: Workspace) -> None:
    first = add(workspace, CONTENT, "model.safetensors", "serving.safetensors")
    assert folder_bytes(first.path) == len(CONTENT)
    second, other = add(workspace, CONTENT, "model.safetensors"), add(workspace, CONTENT[::-1], "model.safetensors")
    before = folder_bytes(workspace.home)
    (found,) = disk.clean(workspace, ["duplicates"])
    assert found.size_bytes == before - folder_bytes(workspace.home) == 20_000
    assert disk.clean(workspace) == []
    shutil.rmtree(first.path)
    assert (second.path / "model.safetensors").read_bytes() == CONTENT
    assert (other.path / "model.safetensors").read_bytes() == CONTENT[::-1]


def test_checkpoints_and_uploads_go_by_themselves_after_the_time_they_are_kept(workspace: Workspace) -> None:
    cancelled, failed = ended(workspace, "cancelled").checkpoint_folder, ended(workspace, "failed").checkpoint_folder
    became, unused = upload(workspace, "became.csv"), upload(workspace, "unused.csv")
    made = ended(workspace, "succeeded", str(became)).checkpoint_folder
    soon = datetime.now(UTC)
    assert disk.clean_expired(workspace, soon + timedelta(hours=23)) == [made]
    assert set(disk.clean_expired(workspace, soon + timedelta(hours=25))) == {cancelled, became}
    assert set(disk.clean_expired(workspace, soon + timedelta(days=8))) == {failed, unused}
