"""The trash: removed folders, and deleted artifacts and jobs with their rows, are kept for 30 days before they are deleted."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ctrlab.storage.folders import folder_bytes, move_folder

KEEP = timedelta(days=30)
_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
#: In an entry of deleted artifacts and jobs: what it holds, for lists; and their rows, for restoring.
CONTENTS_FILE, ROWS_FILE = "contents.json", "rows.json"
_INCOMPLETE = ".incomplete-"


@dataclass(frozen=True, kw_only=True)
class TrashItem:
    """A deleted artifact or job: its id, its kind ("job" for a job) and its name."""

    id: str
    kind: str
    name: str


@dataclass(frozen=True, kw_only=True)
class TrashEntry:
    """A folder in the trash: its name before it was removed, when that was (UTC), where it is, and its size in bytes.

    items: the artifacts and jobs that were deleted together, the one that was asked for first; empty for a folder that a crash
        left behind, which cannot be restored.
    """

    name: str
    removed_at: datetime
    path: Path
    size_bytes: int
    items: tuple[TrashItem, ...] = ()

    @property
    def id(self) -> str:
        """What the entry is called in commands: the name of its folder."""
        return self.path.name


class Trash:
    """Folders below one root, named by the time of their removal and their former name."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, folder: Path, now: datetime) -> TrashEntry:
        """Move a folder into the trash, to the rest of its artifact where that was deleted; `now` is in UTC."""
        self._root.mkdir(parents=True, exist_ok=True)
        for entry in self.entries():
            if folder.name in {item.id for item in entry.items} and not (entry.path / folder.name).exists():
                move_folder(folder, entry.path / folder.name)
                return _entry(entry.path, entry.removed_at)
        target = self._root / f"{now.strftime(_TIME_FORMAT)}-{folder.name.lstrip('.')}"
        move_folder(folder, target)
        return _entry(target, now)

    def open_entry(self, items: Sequence[TrashItem], rows: Mapping[str, Any], now: datetime) -> Path:
        """A new entry with the rows of deleted artifacts and jobs; their folders are to be moved into the path returned."""
        name = f"{now.strftime(_TIME_FORMAT)}-{items[0].id}"
        incomplete, target = self._root / (_INCOMPLETE + name), self._root / name
        shutil.rmtree(incomplete, ignore_errors=True)
        incomplete.mkdir(parents=True)
        (incomplete / ROWS_FILE).write_text(json.dumps(rows), encoding="utf-8")
        (incomplete / CONTENTS_FILE).write_text(json.dumps([vars(item) for item in items]), encoding="utf-8")
        incomplete.rename(target)
        return target

    def entries(self) -> list[TrashEntry]:
        """Contents of the trash, oldest first; files that `put` and `open_entry` did not create are left out."""
        dated = [(path, _removed_at(path)) for path in self._root.iterdir()] if self._root.is_dir() else []
        return sorted((_entry(path, time) for path, time in dated if time is not None), key=lambda entry: entry.removed_at)

    def rows(self, entry: TrashEntry) -> dict[str, Any]:
        """The rows of an entry's artifacts and jobs, by table."""
        found: dict[str, Any] = json.loads((entry.path / ROWS_FILE).read_text(encoding="utf-8"))
        return found

    def purge(self, now: datetime, keep: timedelta = KEEP) -> list[TrashEntry]:
        """Delete what has been in the trash for longer than `keep`; the deleted entries."""
        return self.delete([entry for entry in self.entries() if now - entry.removed_at > keep])

    def delete(self, entries: Sequence[TrashEntry]) -> list[TrashEntry]:
        """Delete entries for good; those that are gone."""
        for entry in entries:
            shutil.rmtree(entry.path, ignore_errors=True)
        return [entry for entry in entries if not entry.path.exists()]


def _removed_at(path: Path) -> datetime | None:
    try:
        return datetime.strptime(path.name.split("-", 1)[0], _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def _entry(path: Path, removed_at: datetime) -> TrashEntry:
    return TrashEntry(
        name=path.name.split("-", 1)[1], removed_at=removed_at, path=path, size_bytes=folder_bytes(path), items=_items(path)
    )


def _items(path: Path) -> tuple[TrashItem, ...]:
    try:
        found = json.loads((path / CONTENTS_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(TrashItem(**item) for item in found)
