"""The tables of the store, for SQLite and PostgreSQL alike."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Any

import sqlalchemy as sa

from ctrlab.config import Config

#: Raised whenever a table changes; a store of another version is refused. A new table is added to a store that lacks it.
SCHEMA_VERSION = 2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UtcTime(sa.TypeDecorator[datetime]):
    """An aware UTC time, kept as whole microseconds since 1970 so that both databases compare it alike."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        """Into the database."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:
        """Out of the database."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class JsonText(sa.TypeDecorator[Any]):
    """JSON kept as text: Python's own dialect, for PostgreSQL's JSON type refuses the NaN of an AUC without positives."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str:
        """Into the database."""
        return json.dumps(value, default=_plain)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        """Out of the database."""
        return None if value is None else json.loads(value)


def _plain(value: Any) -> Any:
    """What `json` cannot write by itself: configs, paths, tuples in sets, numpy scalars and arrays."""
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # numpy, without importing it
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


metadata = sa.MetaData()

schema_version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer, primary_key=True))

#: One row: the random id of this store, also written into its homes.
store_identity = sa.Table("store_identity", metadata, sa.Column("id", sa.String(40), primary_key=True))

artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("config", JsonText, nullable=False),
    sa.Column("summary", JsonText, nullable=False),
    sa.Column("seed", sa.BigInteger),
    sa.Column("code_version", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("job_id", sa.String(40)),
    sa.Column("job_key", sa.Text),
    # A job that is killed between adding its artifact and ending, then resumes, must not add it twice.
    sa.UniqueConstraint("job_id", "job_key", name="one_artifact_per_job_and_key"),
    sa.Index("artifacts_by_kind", "kind", "sequence"),
)

artifact_parents = sa.Table(
    "artifact_parents",
    metadata,
    sa.Column("child_id", sa.String(40), sa.ForeignKey("artifacts.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("parent_id", sa.String(40), sa.ForeignKey("artifacts.id"), nullable=False, index=True),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("kind", sa.String(60), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("config", JsonText, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("progress", sa.Float, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("eta_seconds", sa.Float),
    sa.Column("result", JsonText, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("error_expected", sa.Boolean, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("lost_workers", sa.Integer, nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("queued_at", UtcTime, nullable=False),
    sa.Column("started_at", UtcTime),
    sa.Column("finished_at", UtcTime),
    sa.Column("worker_id", sa.String(80)),
    sa.Column("lease_expires_at", UtcTime),
    sa.Index("jobs_to_claim", "state", "queued_at", "sequence"),
)

metrics = sa.Table(
    "metrics",
    metadata,
    sa.Column("job_id", sa.String(40), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(60), primary_key=True),
    sa.Column("value", sa.Double),
    sqlite_with_rowid=False,  # the rows lie in the order in which curves are read
)

#: What people write about an artifact or a job (`subject_id`); one without a row has an empty annotation.
annotations = sa.Table(
    "annotations",
    metadata,
    sa.Column("subject_id", sa.String(40), primary_key=True),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("tags", JsonText, nullable=False),
    sa.Column("star", sa.Boolean, nullable=False),
    sa.Column("archived", sa.Boolean, nullable=False),
)

#: Jobs that were queued together under one name; a group exists while a job of it does.
job_groups = sa.Table(
    "job_groups",
    metadata,
    sa.Column("job_id", sa.String(40), primary_key=True),
    sa.Column("group_id", sa.String(40), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("code_version", sa.Text, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("beat_at", UtcTime, nullable=False),
)
