"""Checks a path that somebody gave before it is opened: the workspace's own files are refused.

Closing any descriptor of a file drops all POSIX locks that the process holds on it. A process that opens the SQLite database of
the store as somebody's table therefore loses SQLite's own locks, and the next process to close the database deletes a
write-ahead log that is still in use. Files are compared by device and inode, so symbolic links, hard links and bind mounts are
recognised too.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ctrlab.errors import DataError
from ctrlab.services.workspace import Workspace

_Identity = tuple[int, int]


def uploads_folder(workspace: Workspace) -> Path:
    """Folder of uploaded files."""
    return workspace.home / "uploads"


def input_path(workspace: Workspace, path: str | Path, *, uploaded: bool = False) -> Path:
    """The absolute path of an input file, which may be opened; a missing file is left to its reader to report.

    Args:
        uploaded: allow files of the workspace's upload folder.

    Raises:
        DataError: the file is in the home folder or is the store's database, by whatever link or mount.
    """
    chosen = Path(path).expanduser().absolute()
    try:
        found = chosen.stat()
        real = chosen.resolve()
    except ValueError:
        raise DataError(f"{str(path)!r} is not a path (it holds a NUL character); correct it") from None
    except OSError:
        return chosen
    identity = (found.st_dev, found.st_ino)
    if identity in set(_database_files(workspace)):
        raise _refused(chosen)
    if uploaded and real.parent == uploads_folder(workspace).resolve() and found.st_nlink == 1:
        return chosen
    if _is_inside(real, workspace.home) or (found.st_nlink > 1 and identity in set(_files_below(workspace.home))):
        raise _refused(chosen)
    return chosen


def _refused(path: Path) -> DataError:
    return DataError(f"{path.name} is one of ctrlab's own files, which are not opened as input; copy it to another folder first")


def _database_files(workspace: Workspace) -> Iterator[_Identity]:
    """The SQLite database and its side files, wherever the store's address points."""
    database = workspace.store.database.file
    if database is not None:
        yield from _identities(database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm", "-journal"))


def _files_below(folder: Path) -> Iterator[_Identity]:
    for parent, _, names in os.walk(folder):
        yield from _identities(Path(parent) / name for name in names)


def _identities(paths: Iterator[Path]) -> Iterator[_Identity]:
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            continue
        yield found.st_dev, found.st_ino


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether a folder on the way to `path` is `folder`, by device and inode."""
    wanted = set(_identities(iter([folder])))
    return any(identity in wanted for identity in _identities(iter([path, *path.parents])))
