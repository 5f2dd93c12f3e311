"""Deleting into the trash and restoring: rows, files and links come and go together, and nothing is left behind."""

import contextlib
import os
import random
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from ctrlab.errors import StorageError, UnknownNameError
from ctrlab.services import deletion
from ctrlab.services.annotations import annotate
from ctrlab.services.workspace import Workspace
from ctrlab.storage import MetricRow, NewArtifact, Store, schema
from ctrlab.storage.folders import folder_bytes
from ctrlab.storage.pending import PendingChanges

TWO_HOURS = 7200.0


@pytest.fixture
def workspace(store: Store) -> Iterator[Workspace]:
    yield Workspace(store.home, store)


def add(workspace: Workspace, kind: str, *parents: str, size: int = 100, **where: str) -> str:
    """An artifact of one file; the id."""
    folder = workspace.home / "made"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(os.urandom(size))
    return workspace.store.artifacts.add(NewArtifact(kind, kind, parents=parents, files_from=folder), **where).id  # type: ignore[arg-type]


def end(workspace: Workspace, kind: str = "train") -> str:
    """A job that ended, with a curve and a checkpoint; the id."""
    job = workspace.store.jobs.submit(kind, kind, {})
    job.checkpoint_folder.mkdir()
    (job.checkpoint_folder / "state").write_bytes(b"x" * 50)
    workspace.store.metrics.append(job.id, [MetricRow(1, "auc", float("nan")), MetricRow(2, "auc", 0.75)])
    return workspace.store.jobs.request_cancel(job.id).id


def test_what_is_restored_is_as_it_was_with_files_links_notes_and_curves(workspace: Workspace) -> None:
    dataset, job = add(workspace, "dataset"), end(workspace)
    model = add(workspace, "model", dataset, job_id=job)
    spectra = add(workspace, "spectra", model)
    for subject_id in (model, job):
        annotate(workspace, subject_id, note="keep", tags=["a"], star=True)
    artifacts, jobs = workspace.store.artifacts.list(), workspace.store.jobs.list()
    content = (workspace.store.artifacts.get(model).path / "weights.bin").read_bytes()
    entry = deletion.delete(workspace, [model, job])
    assert [item.id for item in entry.items] == [model, job, spectra]
    assert (workspace.store.artifacts.list("model"), workspace.store.jobs.list()) == ([], [])
    assert {subject.id for subject in deletion.restore(workspace, spectra)} == {model, job, spectra}
    assert (workspace.store.artifacts.list(), workspace.store.jobs.list()) == (artifacts, jobs)
    assert (workspace.store.artifacts.get(model).path / "weights.bin").read_bytes() == content
    assert [row.step for row in workspace.store.metrics.read(job)] == [1, 2]
    assert workspace.store.trash.entries() == []


def test_one_hundred_random_operations_leave_nothing_orphaned(workspace: Workspace) -> None:
    draw = random.Random(7)
    for _ in range(100):
        artifacts = workspace.store.artifacts.list()
        of = {kind: [item.id for item in artifacts if item.kind == kind] for kind in ("dataset", "model", "spectra")}
        entries = deletion.trash_entries(workspace)
        do = draw.choices(
            ("dataset", "model", "spectra", "job", "annotate", "delete", "restore", "empty"), (2, 4, 3, 3, 3, 4, 3, 1)
        )[0]
        subjects = [*(item.id for item in artifacts), *(job.id for job in workspace.store.jobs.list())]
        if do in ("dataset", "job"):
            add(workspace, "dataset", size=draw.randrange(500)) if do == "dataset" else end(workspace)
        elif do in ("model", "spectra") and (parents := of["dataset"] if do == "model" else of["model"]):
            add(workspace, do, draw.choice(parents), size=draw.randrange(500))
        elif do == "annotate" and subjects:
            annotate(workspace, draw.choice(subjects), star=True)
        elif do == "delete" and subjects:
            chosen = draw.sample(subjects, min(len(subjects), draw.randint(1, 3)))
            deletion.delete(workspace, chosen, cascade=True, permanently=draw.random() < 0.3)
        elif do == "restore" and entries:
            with contextlib.suppress(StorageError):  # what it was made from is in the trash too
                deletion.restore(workspace, draw.choice(entries).id)
        elif do == "empty" and entries:
            deletion.empty_trash(workspace, [draw.choice(entries).id])
        _nothing_is_orphaned(workspace)
    deletion.empty_trash(workspace)
    living = sum(folder_bytes(item.path) for item in workspace.store.artifacts.list())
    living += sum(folder_bytes(job.folder) for job in workspace.store.jobs.list())
    assert sum(folder_bytes(workspace.home / name) for name in ("artifacts", "jobs", "trash", "pending")) == living > 0


def _nothing_is_orphaned(workspace: Workspace) -> None:
    artifacts, jobs = workspace.store.artifacts.list(), workspace.store.jobs.list()
    assert {item.id for item in artifacts} == {path.name for path in (workspace.home / "artifacts").iterdir()}
    assert {job.id for job in jobs} == {path.name for path in (workspace.home / "jobs").iterdir()}
    assert list((workspace.home / "pending").iterdir()) == []
    ids = {item.id for item in artifacts} | {job.id for job in jobs}
    with workspace.store.database.read() as connection:
        for column in (schema.annotations.c.subject_id, schema.metrics.c.job_id, schema.artifact_parents.c.parent_id):
            assert set(connection.execute(sa.select(column)).scalars()) <= ids


def test_deleting_a_model_for_good_frees_its_bytes_on_disk(workspace: Workspace) -> None:
    dataset = add(workspace, "dataset")
    before = folder_bytes(workspace.home / "artifacts")
    model = add(workspace, "model", dataset, size=10_000)
    add(workspace, "evaluation", model, size=3000)
    planned = deletion.deletion_of(workspace, [model])
    assert (planned.size_bytes, planned.dependents_text) == (13_000, "1 evaluation")
    deletion.delete(workspace, [model], permanently=True)
    assert folder_bytes(workspace.home / "artifacts") == before
    assert folder_bytes(workspace.home / "trash") == 0


def test_models_made_from_it_are_deleted_only_when_that_is_asked_for(workspace: Workspace) -> None:
    original = add(workspace, "model")
    compressed = add(workspace, "model", original)
    with pytest.raises(StorageError, match=rf"these were made from it: {compressed} .*delete them first, or delete it together"):
        deletion.delete(workspace, [original])
    deletion.delete(workspace, [original, compressed])
    assert workspace.store.artifacts.list() == []


def test_what_an_active_job_needs_is_not_deleted(workspace: Workspace) -> None:
    model = add(workspace, "model")
    job = workspace.store.jobs.submit("compress", "Compress", {"compress": {"ids": [model]}})
    for subject_id in (model, job.id):
        with pytest.raises(StorageError, match=rf"{job.id} \(Compress\) .*is queued; cancel it or wait for its end, then delete"):
            deletion.delete(workspace, [subject_id])
    workspace.store.jobs.request_cancel(job.id)
    deletion.delete(workspace, [model])


def test_a_part_is_restored_after_the_whole_and_taken_names_get_a_number(workspace: Workspace) -> None:
    model = add(workspace, "model")
    spectra = add(workspace, "spectra", model)
    deletion.delete(workspace, [spectra])
    deletion.delete(workspace, [model])
    with pytest.raises(StorageError, match=f"it was made from {model}, which was deleted too; restore that first"):
        deletion.restore(workspace, spectra)
    add(workspace, "model")
    assert [subject.name for subject in deletion.restore(workspace, model) if not hasattr(subject, "title")] == ["model, 2"]
    deletion.restore(workspace, spectra)
    with pytest.raises(UnknownNameError, match="the trash is empty"):
        deletion.restore(workspace, spectra)


def test_a_deletion_that_was_killed_before_its_files_moved_can_be_restored(workspace: Workspace) -> None:
    model, job = add(workspace, "model"), end(workspace)
    add(workspace, "dataset")
    entry = deletion.delete(workspace, [model, job])
    changes = PendingChanges(workspace.home / "pending", workspace.store.database.store_id())
    with contextlib.suppress(InterruptedError), changes.record([model, job]):
        raise InterruptedError
    (entry.path / model).rename(workspace.home / "artifacts" / model)
    (entry.path / job).rename(workspace.home / "jobs" / job)
    (record,) = (workspace.home / "pending").iterdir()
    os.utime(record, (time.time() - TWO_HOURS,) * 2)
    assert {moved.path for moved in workspace.store.artifacts.sweep()} == {entry.path}
    assert [path.name for path in (workspace.home / "artifacts").iterdir()] == [workspace.store.artifacts.list()[0].id]
    deletion.restore(workspace, model)
    assert (workspace.store.artifacts.get(model).path / "weights.bin").exists()
    assert workspace.store.jobs.get(job).checkpoint_folder.is_dir()
