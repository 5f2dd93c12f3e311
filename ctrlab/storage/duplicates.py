"""Files with the same content below one folder, and their replacement by hard links: the content is then stored once.

Only for folders whose files never change once written, as those of artifacts.
"""

import hashlib
import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

#: Smaller files are not worth a comparison.
MIN_BYTES = 4096
_END_BYTES = 64 * 1024

_K = TypeVar("_K", bound=Hashable)


class _File(NamedTuple):
    path: Path
    device: int
    inode: int
    size: int


class Duplicates(NamedTuple):
    """Files of one content: the one that is kept, those that can become links to it, and the bytes that this frees."""

    kept: Path
    others: tuple[Path, ...]
    freed_bytes: int


def find_duplicates(root: Path) -> list[Duplicates]:
    """Groups of equal files below `root` that are stored more than once; files that are one already are left out."""
    links: dict[tuple[int, int], list[_File]] = defaultdict(list)  # all names of each file
    for file in _files(root):
        links[file.device, file.inode].append(file)
    groups = _split([[names[0] for names in links.values()]], lambda file: (file.device, file.size))
    groups = _split(groups, lambda file: _digest(file, ends_only=True))
    groups = _split(groups, lambda file: _digest(file, ends_only=False))
    return [_duplicates([links[file.device, file.inode] for file in group]) for group in groups]


def link_duplicates(found: Iterable[Duplicates]) -> int:
    """Replace the others of each group by hard links to the one that is kept; the bytes that this freed.

    A group with a file that was deleted meanwhile, or on a file system without hard links, frees nothing.
    """
    freed = 0
    for group in found:
        replaced = [_replace(other, group.kept) for other in group.others]
        freed += group.freed_bytes if all(replaced) else 0
    return freed


def _replace(other: Path, kept: Path) -> bool:
    link = other.with_name(f".link-{secrets.token_hex(4)}")
    try:
        os.link(kept, link)
        if other.exists():
            link.replace(other)
            return True
    except OSError:
        pass
    link.unlink(missing_ok=True)
    return False


def _duplicates(group: list[list[_File]]) -> Duplicates:
    kept, *others = sorted(group, key=len, reverse=True)
    paths = tuple(file.path for names in others for file in names)
    return Duplicates(kept[0].path, paths, sum(names[0].size for names in others))


def _files(root: Path) -> list[_File]:
    found = []
    for parent, _, names in os.walk(root):
        for path in (Path(parent) / name for name in sorted(names)):
            try:
                stats = path.lstat()
            except FileNotFoundError:
                continue
            if stats.st_size >= MIN_BYTES and path.is_file() and not path.is_symlink():
                found.append(_File(path, stats.st_dev, stats.st_ino, stats.st_size))
    return sorted(found)


def _split(groups: Iterable[list[_File]], key: Callable[[_File], _K]) -> list[list[_File]]:
    """Each group by `key`; those of one file are dropped."""
    found = []
    for group in groups:
        by_key: dict[_K, list[_File]] = defaultdict(list)
        for file in group:
            by_key[key(file)].append(file)
        found += [files for files in by_key.values() if len(files) > 1]
    return found


def _digest(file: _File, *, ends_only: bool) -> str:
    """SHA-256 of a file, or of its first and last 64 KiB; another one for each file that cannot be read."""
    try:
        with file.path.open("rb") as content:
            if not ends_only:
                return hashlib.file_digest(content, "sha256").hexdigest()
            first = content.read(_END_BYTES)
            content.seek(max(0, file.size - _END_BYTES))
            return hashlib.sha256(first + content.read(_END_BYTES)).hexdigest()
    except OSError:
        return secrets.token_hex(32)
