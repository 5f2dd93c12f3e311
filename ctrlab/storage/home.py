"""The home folder: its subfolders, and the id of the store that its files belong to."""

import os
import secrets
from pathlib import Path

from ctrlab.errors import StorageError
from ctrlab.storage.folders import PRIVATE_FILE, make_private_folder

#: File with the id of the store that the files of this home belong to.
IDENTITY_FILE = "store-id"
_SUBFOLDERS = ("artifacts", "jobs", "pending", "trash", "workers")


def prepare_home(home: Path) -> None:
    """Create the home and its subfolders, readable by their user alone; StorageError where that is not possible."""
    try:
        for folder in (home, *(home / name for name in _SUBFOLDERS)):
            make_private_folder(folder)
    except OSError as error:
        raise StorageError(f"{home} cannot be used as home folder: {error.strerror}; choose another with CTRLAB_HOME") from error


def home_store_id(home: Path) -> str | None:
    """The id of the store that the home's files belong to; None for a home that has none yet."""
    try:
        return (home / IDENTITY_FILE).read_text().strip() or None
    except FileNotFoundError:
        return None


def record_store_id(home: Path, store_id: str) -> None:
    """Write the id into a home that has none; the file is either whole or absent."""
    temporary = home / f".{IDENTITY_FILE}-{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    os.write(descriptor, store_id.encode() + b"\n")
    os.close(descriptor)
    temporary.replace(home / IDENTITY_FILE)


def check_store_id(home: Path, expected: str | None, found: str | None, database: str) -> None:
    """Refuse a database that the home's files do not belong to.

    Args:
        home: the home folder.
        expected: the id in the home; None accepts any database.
        found: the id in the database; None where the database is missing or empty.
        database: its address, for the message.

    Raises:
        StorageError: the ids differ; the message says how to get the earlier database back and how to go on with this one.
    """
    if expected is None or expected == found:
        return
    owner = f"the files in {home} belong to the store {expected}"
    choice = f"delete {home / IDENTITY_FILE}: the files of the earlier store stay and are never removed"
    if found is None:
        raise StorageError(
            f"{owner}, but its database {database} is missing or empty; put the database back, or, to start with an empty one, "
            f"{choice}"
        )
    raise StorageError(
        f"{owner}, but the database {database} is the store {found}; correct CTRLAB_STORE_URL or CTRLAB_HOME, or, to use this "
        f"database from now on, {choice}"
    )
