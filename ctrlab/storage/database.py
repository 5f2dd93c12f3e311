"""One database behind a URL, SQLite or PostgreSQL: how it is created, opened, read and written."""

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from ctrlab.errors import ConfigError, StorageError, StoreUnavailableError
from ctrlab.storage.folders import PRIVATE_FILE
from ctrlab.storage.schema import SCHEMA_VERSION, metadata, schema_version, store_identity

#: How long a statement waits for another process's write to end.
BUSY_SECONDS = 30.0
_PASSING_SQLITE_CODES = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
)  # fmt: skip
#: An arbitrary number: key of the lock under which processes create the schema one after the other (PostgreSQL).
_SCHEMA_LOCK_KEY = 0x6374726C6162


class Database:
    """Connections to one store. `read` gives one consistent snapshot, `write` one transaction that is committed at its end."""

    def __init__(self, url: str | sa.URL, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.url = _parse(url)
        self._busy_seconds = busy_seconds
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"connect_args": {"timeout": busy_seconds}} if self.is_sqlite else {"pool_pre_ping": True}
        try:
            self._engine = sa.create_engine(self.url, **options)
        except (ImportError, exc.ArgumentError, TypeError) as error:
            raise ConfigError(f"the store address {self} cannot be used ({error}); install its driver or correct it") from None
        if self.is_sqlite:
            sa.event.listen(self._engine, "connect", partial(_set_up_sqlite, busy_seconds))
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        self._reader = self._engine.execution_options(ctrlab_reads=True)

    def __str__(self) -> str:
        return str(self.url.database) if self.is_sqlite else self.url.render_as_string(hide_password=True)

    @cached_property
    def file(self) -> Path | None:
        """The file of an SQLite database, as SQLite itself names it; None for another database."""
        if not self.is_sqlite:
            return None
        with self.read() as connection:
            rows = connection.exec_driver_sql("PRAGMA database_list").all()
        return next(Path(file) for _, name, file in rows if name == "main")

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for reading."""
        with self._translated(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction; an exception inside rolls it back."""
        with self._translated(), self._engine.begin() as connection:
            yield connection

    def exists(self) -> bool:
        """Whether there is a store at this address: for SQLite a file that is not empty, else a schema of ours."""
        if self.is_sqlite and not self._has_content():
            return False
        return self._version() is not None

    def prepare(self) -> None:
        """Create the schema if there is none; refuse another version's. Safe when several processes do it at once."""
        if self.is_sqlite:
            self._create_private_file()
            self._switch_to_wal()
        version = self._version()
        if version is None or (version == SCHEMA_VERSION and self._lacks_tables()):
            version = self._create_schema()
        if version != SCHEMA_VERSION:
            raise StorageError(
                f"the store {self} has schema version {version} and this ctrlab reads version {SCHEMA_VERSION}; "
                "use the ctrlab that made it, or choose a new folder with CTRLAB_HOME"
            )

    def store_id(self) -> str:
        """The random id of this store; call `prepare` first."""
        with self.read() as connection:
            found: str = connection.execute(sa.select(store_identity.c.id)).scalar_one()
            return found

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _has_content(self) -> bool:
        try:
            return Path(self.url.database or "").stat().st_size > 0
        except OSError:  # what is wrong with it is said when it is opened
            return False

    def _create_private_file(self) -> None:
        """Create the file of a new SQLite database readable by its user alone.

        An existing file must not be opened here: closing any descriptor of it would drop the locks that SQLite's connections
        in this process hold on it.
        """
        with contextlib.suppress(OSError):
            os.close(os.open(self.url.database or "", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE))

    def _version(self) -> int | None:
        with self.read() as connection:
            if not sa.inspect(connection).has_table(schema_version.name):
                return None
            return connection.execute(sa.select(schema_version.c.version)).scalar_one_or_none()

    def _lacks_tables(self) -> bool:
        with self.read() as connection:
            return not set(metadata.tables) <= set(sa.inspect(connection).get_table_names())

    def _create_schema(self) -> int:
        with self.write() as connection:  # on SQLite the transaction itself keeps others out
            if not self.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK_KEY)))
            metadata.create_all(connection)
            found = connection.execute(sa.select(schema_version.c.version)).scalar_one_or_none()
            if found is None:
                connection.execute(sa.insert(schema_version).values(version=SCHEMA_VERSION))
                connection.execute(sa.insert(store_identity).values(id=secrets.token_hex(8)))
            return SCHEMA_VERSION if found is None else found

    def _switch_to_wal(self) -> None:
        """Set the write-ahead log, in which readers never wait for writers. SQLite's busy timeout does not cover this switch."""
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                with self._translated(), self._engine.connect() as connection:
                    raw = connection.connection.dbapi_connection
                    assert raw is not None
                    raw.execute("PRAGMA journal_mode=WAL")
                return
            except StoreUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of a database that is busy, away or damaged as one sentence; programming errors pass unchanged."""
        try:
            yield
        except (exc.IntegrityError, exc.ProgrammingError):
            raise
        except (exc.DBAPIError, sqlite3.Error) as error:
            cause = getattr(error, "orig", None) or error
            reason = str(cause).strip().splitlines()[0]
            kind = StoreUnavailableError if _is_passing(cause) else StorageError
            raise kind(f"the store {self} cannot be used: {reason}; check that it is there and may be written") from error


def _is_passing(error: BaseException) -> bool:
    """Whether the same statement may succeed later: the database is locked, full or cannot be reached."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING_SQLITE_CODES
    return type(error).__name__ in ("OperationalError", "InterfaceError")  # of psycopg, which need not be installed


def _parse(url: str | sa.URL) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError:
        raise ConfigError(f"{url!r} is not a store address; write sqlite:///file or postgresql://user@host/name") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigError(f"a store lives in sqlite or postgresql, got {parsed.get_backend_name()}; correct CTRLAB_STORE_URL")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError("a store in memory cannot be shared with the worker; give sqlite:/// and a file")
    return parsed


def _set_up_sqlite(busy_seconds: float, connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, see _begin_sqlite
    connection.execute(f"PRAGMA busy_timeout={int(busy_seconds * 1000)}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=NORMAL")  # in WAL a killed process loses nothing, and a commit needs no fsync


def _begin_sqlite(connection: sa.Connection) -> None:
    """Take the write lock at once: a transaction that reads first and writes later fails instead of waiting its turn."""
    reads = connection.get_execution_options().get("ctrlab_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
