"""A starting worker moves what crashes left behind to the trash, deletes old trash, and logs both."""

import contextlib
import os
import time
from pathlib import Path

from ctrlab.services.jobs import worker_state
from ctrlab.services.workspace import Workspace
from ctrlab.storage import NewArtifact
from ctrlab.storage.pending import PendingChanges
from tests.support.patience import PATIENCE
from tests.support.worker_support import StartWorker

TWO_HOURS = 7200.0


def folder_with_a_file(folder: Path) -> Path:
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"weights")
    return folder


def unfinished_change(workspace: Workspace, artifact_id: str) -> None:
    """The record of a change that a process killed two hours ago had begun."""
    changes = PendingChanges(workspace.home / "pending", workspace.store.database.store_id())
    with contextlib.suppress(InterruptedError), changes.record([artifact_id]):
        raise InterruptedError
    (record,) = (workspace.home / "pending").iterdir()
    os.utime(record, (time.time() - TWO_HOURS,) * 2)


def test_a_starting_worker_logs_what_it_moves_to_the_trash_and_what_it_deletes_there_and_an_idle_one_exits(
    workspace: Workspace, start_worker: StartWorker, tmp_path: Path
) -> None:
    artifacts, trash = workspace.home / "artifacts", workspace.home / "trash"
    kept = workspace.store.artifacts.add(NewArtifact("model", "DeepFM", files_from=folder_with_a_file(tmp_path / "made")))
    unfinished_change(workspace, "model-0badf00d")
    folder_with_a_file(artifacts / "model-0badf00d")
    folder_with_a_file(artifacts / "model-of-another-store")
    old = folder_with_a_file(trash / "20200101T000000Z-model-11111111")
    worker = start_worker("--idle-exit-seconds", "0.5")
    assert worker.wait(timeout=PATIENCE) == 0  # without a job it exits after its idle time
    assert not worker_state(workspace).alive
    (moved,) = trash.iterdir()
    log = (workspace.home / "worker.log").read_text()
    assert f"moved model-0badf00d (7 bytes, left by a crash, not in the store) to {moved}" in log
    assert f"deleted {old} (7 bytes, in the trash since 2020-01-01)" in log
    assert "left alone in artifacts/, for this store has no row for them: 1, such as model-of-another-store" in log
    assert sorted(folder.name for folder in artifacts.iterdir()) == sorted([kept.id, "model-of-another-store"])
    assert list((workspace.home / "pending").iterdir()) == []
