"""The trash: removed folders are kept for 30 days before they are deleted."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ctrlab.storage.folders import folder_bytes, move_folder

KEEP = timedelta(days=30)
_TIME_FORMAT = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, kw_only=True)
class TrashEntry:
    """A folder in the trash: its name before it was removed, when that was (UTC), where it is, and its size in bytes."""

    name: str
    removed_at: datetime
    path: Path
    size_bytes: int


class Trash:
    """Folders below one root, named by the time of their removal and their former name."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, folder: Path, now: datetime) -> TrashEntry:
        """Move a folder into the trash; `now` is in UTC."""
        self._root.mkdir(parents=True, exist_ok=True)
        target = self._root / f"{now.strftime(_TIME_FORMAT)}-{folder.name.lstrip('.')}"
        move_folder(folder, target)
        return _entry(target, now)

    def entries(self) -> list[TrashEntry]:
        """Contents of the trash, oldest first; files that `put` did not create are left out."""
        dated = [(path, _removed_at(path)) for path in self._root.iterdir()] if self._root.is_dir() else []
        return sorted((_entry(path, time) for path, time in dated if time is not None), key=lambda entry: entry.removed_at)

    def purge(self, now: datetime, keep: timedelta = KEEP) -> list[TrashEntry]:
        """Delete folders that have been in the trash for longer than `keep`; the deleted ones."""
        expired = [entry for entry in self.entries() if now - entry.removed_at > keep]
        for entry in expired:
            shutil.rmtree(entry.path, ignore_errors=True)
        return [entry for entry in expired if not entry.path.exists()]


def _removed_at(path: Path) -> datetime | None:
    try:
        return datetime.strptime(path.name.split("-", 1)[0], _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def _entry(path: Path, removed_at: datetime) -> TrashEntry:
    return TrashEntry(name=path.name.split("-", 1)[1], removed_at=removed_at, path=path, size_bytes=folder_bytes(path))
