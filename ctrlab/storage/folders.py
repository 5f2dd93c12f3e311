"""Folders of a home: created private to their user, moved whole, measured."""

import contextlib
import errno
import logging
import os
import shutil
import stat
from pathlib import Path

from ctrlab.errors import StorageError

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
#: Hidden name of a folder while it is copied from another file system.
INCOMING = ".incoming-"

logger = logging.getLogger("ctrlab.storage")


def make_private_folder(folder: Path) -> None:
    """Create `folder` with mode 0700, or remove the access of other users to it, with a warning in the log.

    A shared folder (one with the sticky bit, such as /tmp) and a folder of another user keep their mode; the warning says so.
    """
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    found = folder.stat()
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077 == 0:
        return
    if mode & stat.S_ISVTX or found.st_uid != os.geteuid():
        logger.warning("%s is open to other users of this machine (mode %03o) and cannot be made private", folder, mode)
        return
    folder.chmod(PRIVATE_FOLDER)
    logger.warning("%s was open to other users of this machine (mode %03o); its mode is now %03o", folder, mode, PRIVATE_FOLDER)


def move_folder(source: Path, target: Path) -> None:
    """Rename, or across file systems copy under a hidden name and rename: `target` is either whole or absent.

    Raises:
        StorageError: the folder cannot be moved; it is then where it was.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise StorageError(f"the files in {source} could not be moved into the store: {error.strerror}") from error
        incoming = target.with_name(INCOMING + target.name)
        shutil.copytree(source, incoming)
        incoming.rename(target)
        shutil.rmtree(source, ignore_errors=True)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`, one with several hard links once; a file that is removed meanwhile counts 0."""
    found: dict[tuple[int, int], int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                stats = (Path(parent) / name).lstat()
                found[stats.st_dev, stats.st_ino] = stats.st_size
    return sum(found.values())
