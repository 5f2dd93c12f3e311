"""The disk that a home takes: sizes by kind, what can be freed without losing a result, and freeing it.

What nobody needs any more goes by itself when a worker starts: checkpoints of cancelled jobs after a day, of failed and
interrupted ones after a week; uploads a day after they became a dataset or a model, or after a week when they did not; the trash
after 30 days. `clean` frees the same at once, and stores equal files once.
"""

import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ctrlab.errors import ConfigError
from ctrlab.services.paths import uploads_folder
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, Job
from ctrlab.storage.deletion import texts_in
from ctrlab.storage.duplicates import find_duplicates, link_duplicates
from ctrlab.storage.folders import folder_bytes
from ctrlab.storage.locks import FileLock

#: How long the checkpoints of a job are kept after it ended; a retry after that starts again. Those of succeeded jobs go at once.
KEEP_CHECKPOINTS = {"cancelled": timedelta(days=1), "failed": timedelta(days=7), "interrupted": timedelta(days=7)}
#: How long an upload is kept after a dataset or a model was made of it, and after its arrival when none was.
KEEP_USED_UPLOAD, KEEP_UNUSED_UPLOAD = timedelta(days=1), timedelta(days=7)
#: An upload that no job names may be in a draft of the Data page: it is not freed before this age.
_DRAFT = timedelta(hours=6)
_AT_ONCE = timedelta(0)

#: Kinds of artifacts by what they are counted as; all others are measurements.
_KINDS = {"dataset": "Datasets", "model": "Models", "spectra": "Spectra", "plan": "Plans"}
_MEASUREMENTS = "Measurements"


@dataclass(frozen=True, kw_only=True)
class DiskUse:
    """Size of one kind of content. count: how many there are."""

    kind: str
    count: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Freeable:
    """Something that can be freed without losing a result.

    key: its name in commands. title and consequence: for people. size_bytes: what it frees. paths: what is removed or replaced.
    """

    key: str
    title: str
    consequence: str
    size_bytes: int
    paths: tuple[Path, ...]


def disk_use(workspace: Workspace) -> list[DiskUse]:
    """Sizes by kind of content, in a fixed order; together they are all files of the home."""
    home, artifacts, jobs = workspace.home, workspace.store.artifacts.list(), workspace.store.jobs.list()
    found = [
        _use(title, [artifact.path for artifact in artifacts if _KINDS.get(artifact.kind, _MEASUREMENTS) == title])
        for title in (*_KINDS.values(), _MEASUREMENTS)
    ]
    checkpoints = [job.checkpoint_folder for job in jobs if job.checkpoint_folder.is_dir()]
    logs = [job.folder for job in jobs]
    found += [_use("Checkpoints", checkpoints), _use("Job logs", logs, without=checkpoints)]
    found += [_use("Uploads", _inside(uploads_folder(workspace))), _use("Trash", _inside(home / "trash"))]
    rest = folder_bytes(home) - folder_bytes(home / "trash") - folder_bytes(uploads_folder(workspace))
    rest -= folder_bytes(home / "artifacts") + folder_bytes(home / "jobs")
    unknown = [home / "artifacts" / name for name in workspace.store.artifacts.unknown_folders()]
    found += [_use("Left by another store", unknown)] if unknown else []
    return [*found, DiskUse(kind="Database and logs", count=1, size_bytes=max(0, rest))]


def sizes(artifacts: Sequence[Artifact]) -> dict[str, int]:
    """{id: bytes of its files} of artifacts."""
    return {artifact.id: folder_bytes(artifact.path) for artifact in artifacts}


def freeable(workspace: Workspace, *, now: datetime | None = None) -> list[Freeable]:
    """What `clean` would free now, kind by kind; kinds with nothing to free are left out."""
    now = now or datetime.now(UTC)
    return [found for find in _FINDERS.values() if (found := find(workspace, now)).paths]


def clean(workspace: Workspace, only: Collection[str] | None = None, *, now: datetime | None = None) -> list[Freeable]:
    """Free what `freeable` lists, or the kinds in `only`; what was freed, with the bytes that it took.

    Raises:
        ConfigError: an unknown kind.
    """
    if unknown := sorted(set(only or ()) - set(FREEABLE_KINDS)):
        raise ConfigError(f"{', '.join(unknown)} cannot be freed; choose from {', '.join(FREEABLE_KINDS)}")
    chosen = [found for found in freeable(workspace, now=now) if only is None or found.key in only]
    return [_freed(workspace, found) for found in chosen]


def clean_expired(workspace: Workspace, now: datetime) -> list[Path]:
    """Free checkpoints and uploads that are older than they are kept; what was removed. For workers."""
    due = [*_checkpoints(workspace, now, KEEP_CHECKPOINTS), *_uploads(workspace, now, KEEP_USED_UPLOAD, KEEP_UNUSED_UPLOAD)]
    return [path for path in due if _removed(path)]


def _find_checkpoints(workspace: Workspace, now: datetime) -> Freeable:
    paths = _checkpoints(workspace, now, dict.fromkeys(KEEP_CHECKPOINTS, _AT_ONCE))
    return _freeable("checkpoints", "Checkpoints of jobs that ended", "Retrying such a job starts it again.", paths)


def _find_uploads(workspace: Workspace, now: datetime) -> Freeable:
    paths = _uploads(workspace, now, _AT_ONCE, _DRAFT)
    return _freeable("uploads", "Uploads that became datasets or were not used", "The datasets stay.", paths)


def _find_trash(workspace: Workspace, now: datetime) -> Freeable:
    paths = [entry.path for entry in workspace.store.trash.entries()]
    return _freeable("trash", "Trash", "What was deleted cannot be restored any more.", paths)


def _find_duplicates(workspace: Workspace, now: datetime) -> Freeable:
    found = find_duplicates(workspace.home / "artifacts")
    paths = tuple(path for group in found for path in group.others)
    size = sum(group.freed_bytes for group in found)
    consequence = "Each content is stored once; nothing else changes."
    return Freeable(key="duplicates", title="Files stored twice", consequence=consequence, size_bytes=size, paths=paths)


_FINDERS: dict[str, Callable[[Workspace, datetime], Freeable]] = {
    "checkpoints": _find_checkpoints, "uploads": _find_uploads, "trash": _find_trash, "duplicates": _find_duplicates,
}  # fmt: skip
#: The kinds that `clean` frees.
FREEABLE_KINDS = tuple(_FINDERS)


def _freed(workspace: Workspace, found: Freeable) -> Freeable:
    if found.key == "duplicates":
        size = link_duplicates(find_duplicates(workspace.home / "artifacts"))
        return Freeable(**{**vars(found), "size_bytes": size})
    before = {path: _size(path) for path in found.paths}
    gone = tuple(path for path in found.paths if _removed(path))
    return Freeable(**{**vars(found), "size_bytes": sum(before[path] for path in gone), "paths": gone})


def _checkpoints(workspace: Workspace, now: datetime, keep: dict[str, timedelta]) -> list[Path]:
    """Checkpoint folders, not empty, of jobs that ended longer ago than they are kept."""
    return [
        job.checkpoint_folder for job in workspace.store.jobs.list() if _expired(job, now, keep) and _size(job.checkpoint_folder)
    ]


def _expired(job: Job, now: datetime, keep: dict[str, timedelta]) -> bool:
    ended = not job.active and job.finished_at is not None and now - job.finished_at >= keep.get(job.state, _AT_ONCE)
    return ended and job.checkpoint_folder.is_dir()


def _uploads(workspace: Workspace, now: datetime, keep_used: timedelta, keep_unused: timedelta) -> list[Path]:
    """Uploads older than they are kept: since a job made something of them, else since they came or a job with them ended."""
    jobs = workspace.store.jobs.list()
    return [path for path in _inside(uploads_folder(workspace)) if _expired_upload(path, jobs, now, keep_used, keep_unused)]


def _expired_upload(path: Path, jobs: Sequence[Job], now: datetime, keep_used: timedelta, keep_unused: timedelta) -> bool:
    naming = [job for job in jobs if str(path) in texts_in(job.config)]
    if any(job.active for job in naming):
        return False
    made = [job.finished_at for job in naming if job.state == "succeeded" and job.finished_at]
    if made:
        return now - max(made) >= keep_used
    arrived = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return now - max([arrived, *(job.finished_at for job in naming if job.finished_at)]) >= keep_unused


def _removed(path: Path) -> bool:
    """Remove a file or a folder; a checkpoint folder only while no attempt of its job runs. Whether it is gone."""
    if path.name != "checkpoints":
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return not path.exists()
    lock = FileLock(path.parent / ".lock")
    if not lock.acquire():
        return False
    try:
        shutil.rmtree(path, ignore_errors=True)
    finally:
        lock.release()
    return not path.exists()


def _freeable(key: str, title: str, consequence: str, paths: Sequence[Path]) -> Freeable:
    size = sum(map(_size, paths))
    return Freeable(key=key, title=title, consequence=consequence, size_bytes=size, paths=tuple(paths))


def _use(kind: str, paths: Sequence[Path], without: Iterable[Path] = ()) -> DiskUse:
    return DiskUse(kind=kind, count=len(paths), size_bytes=sum(map(_size, paths)) - sum(map(_size, without)))


def _size(path: Path) -> int:
    return folder_bytes(path) if path.is_dir() else path.stat().st_size if path.exists() else 0


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
