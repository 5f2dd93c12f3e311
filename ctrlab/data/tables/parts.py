"""Finds the files of a source: folders of part files, Hive partitions, patterns, archives."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from ctrlab.data.configs import SourceConfig
from ctrlab.data.tables.archives import archive_members, is_table_name
from ctrlab.data.tables.faults import FORMATS_HINT, megabytes
from ctrlab.errors import DataError

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Part:
    """One file of a source.

    path: of the file or archive. member: the file in the archive. number: index of the source's path that it belongs to.
    constants: columns given by its folders, such as day in `day=2024-03-01/part-0.csv`; None for Hive's null.
    """

    path: Path
    member: str | None = None
    number: int = 0
    constants: dict[str, str | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name for messages."""
        return self.path.name if self.member is None else f"{self.path.name}/{self.member}"


def find_parts(source: SourceConfig, max_bytes: int | None = None) -> list[Part]:
    """The files of all paths of a source, those of a folder or pattern in the order of their names.

    Args:
        max_bytes: refuse larger files; of a folder, their sum.

    Raises:
        DataError: no such file, not a regular file, too large, empty, or an archive of several tables.
    """
    return [part for number, path in enumerate(source.paths) for part in _parts_of(Path(path).expanduser(), number, max_bytes)]


def _parts_of(path: Path, number: int, max_bytes: int | None) -> list[Part]:
    if not path.exists():
        if any(mark in str(path) for mark in "*?[") and (found := _matching(path)):
            files = [one for one in found if one.is_file() and is_table_name(one.name)]
            if not files:
                raise DataError(f"{path} matches no files that may be tables")
            return _folder_parts(path, files, path.parent, number, max_bytes)
        if (member := _named_member(path)) is not None:
            _check_file(member[0], max_bytes)
            return [Part(member[0], member[1], number)]
        raise DataError(f"{path} does not exist; check the path")
    if path.is_dir():
        files = [one for one in sorted(path.rglob("*")) if one.is_file() and is_table_name(str(one.relative_to(path)))]
        if not files:
            raise DataError(f"{path} is a directory without files that may be tables; give a file, or a folder of parts")
        return _folder_parts(path, files, path, number, max_bytes)
    _check_file(path, max_bytes)
    return [Part(path, _only_member(path), number)]


def _folder_parts(whole: Path, files: list[Path], root: Path, number: int, max_bytes: int | None) -> list[Part]:
    files = [file for file in files if file.stat().st_size]
    if not files:
        raise DataError(f"all files of {whole} are empty; {FORMATS_HINT} with rows in it")
    for file in files:
        _check_file(file, None)
    total = sum(file.stat().st_size for file in files)
    if max_bytes is not None and total > max_bytes:
        raise _too_large(whole.name, total, max_bytes)
    parts = []
    for file in files:
        folders = [folder.split("=", 1) for folder in file.relative_to(root).parts[:-1] if "=" in folder]
        constants = {unquote(key): None if value == _HIVE_NULL else unquote(value) for key, value in folders}
        parts.append(Part(file, _only_member(file), number, constants))
    keys = {tuple(part.constants) for part in parts}
    if len(keys) > 1:
        found = ", ".join("/".join(key) or "none" for key in sorted(keys)[:3])
        raise DataError(f"the folders of {whole} give different columns ({found}); give files of one layout")
    return parts


def _matching(pattern: Path) -> list[Path]:
    """The paths that match a pattern."""
    root = Path(pattern.anchor or ".")
    return sorted(root.glob(str(pattern.relative_to(root) if pattern.anchor else pattern)))


def _named_member(path: Path) -> tuple[Path, str] | None:
    """The archive and the file in it that a path such as `dac.tar.gz/train.txt` names."""
    for archive in path.parents:
        if archive.is_file():
            member = path.relative_to(archive).as_posix()
            names = archive_members(archive)
            if names is not None and member in names:
                return archive, member
            if names is not None:
                raise DataError(f"{archive.name} holds no file {member}; it holds {_listed(names)}")
    return None


def _only_member(path: Path) -> str | None:
    """The only table of an archive; None for a file that is no archive."""
    names = archive_members(path)
    if names is None:
        return None
    tables = [name for name in names if is_table_name(name)]
    if not tables:
        raise DataError(f"{path.name} is an archive without a table in it; {FORMATS_HINT}")
    if len(tables) > 1:
        raise DataError(
            f"{path.name} is an archive of {len(tables)} files ({_listed(tables)}); name one of them by a path such as "
            f"{path.name}/{tables[0]}, or unpack it"
        )
    return tables[0]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _check_file(path: Path, max_bytes: int | None) -> None:
    """Raise DataError unless the path is a readable regular file of at most `max_bytes` bytes."""
    if not path.is_file():
        raise DataError(f"{path} is not a regular file; {FORMATS_HINT}")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} may not be read by this user; change its permissions")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path.name} is empty; {FORMATS_HINT} with rows in it")
    if max_bytes is not None and size > max_bytes:
        raise _too_large(path.name, size, max_bytes)


def _too_large(name: str, size: int, max_bytes: int) -> DataError:
    return DataError(
        f"{name} has {megabytes(size)}, more than the allowed {megabytes(max_bytes)}; give a smaller file or raise the limit"
    )
