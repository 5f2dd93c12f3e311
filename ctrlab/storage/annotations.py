"""Notes, tags, stars and the archive: what people write about artifacts and jobs."""

from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa

from ctrlab.errors import ConfigError
from ctrlab.storage import schema
from ctrlab.storage.database import Database
from ctrlab.storage.records import Annotation

MAX_NOTE_LENGTH = 10_000
MAX_TAG_LENGTH = 60
MAX_TAGS = 30

_table = schema.annotations
#: To be selected beside the columns of an artifact or a job, with `annotated`.
COLUMNS = (_table.c.note, _table.c.tags, _table.c.star, _table.c.archived)


class Annotations:
    """The annotation of each artifact and job; an empty one where none was written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, subject_id: str) -> Annotation:
        """The annotation of an artifact or a job."""
        with self._database.read() as connection:
            return _read(connection, subject_id)

    def change(self, subject_id: str, **changes: Any) -> Annotation:
        """Set the fields given and keep the others; `subject_id` must exist.

        Raises:
            ConfigError: a note or a tag is too long, or there are too many tags.
        """
        if "tags" in changes:
            changes["tags"] = tuple(dict.fromkeys(tag.strip() for tag in changes["tags"] if tag.strip()))
        _check(**changes)
        with self._database.write() as connection:
            changed = replace(_read(connection, subject_id), **changes)
            connection.execute(sa.delete(_table).where(_table.c.subject_id == subject_id))
            if changed != Annotation():
                connection.execute(sa.insert(_table).values(subject_id=subject_id, **asdict(changed)))
        return changed


def annotated(table: sa.Table) -> sa.Join:
    """`table`, of rows with an `id`, beside the annotations of its rows."""
    return table.outerjoin(_table, _table.c.subject_id == table.c.id)


def annotation_of(row: Any) -> Annotation:
    """The annotation in a row that has `COLUMNS`; an empty one where they are NULL."""
    if row.tags is None:
        return Annotation()
    return Annotation(note=row.note, tags=tuple(row.tags), star=row.star, archived=row.archived)


def _read(connection: sa.Connection, subject_id: str) -> Annotation:
    row = connection.execute(sa.select(*COLUMNS).where(_table.c.subject_id == subject_id)).first()
    return Annotation() if row is None else annotation_of(row)


def _check(note: str = "", tags: tuple[str, ...] = (), **_: object) -> None:
    if len(note) > MAX_NOTE_LENGTH:
        raise ConfigError(f"the note has {len(note):,} characters; shorten it to {MAX_NOTE_LENGTH:,}")
    if len(tags) > MAX_TAGS:
        raise ConfigError(f"{len(tags)} tags were given; give at most {MAX_TAGS}")
    if long := [tag for tag in tags if len(tag) > MAX_TAG_LENGTH]:
        raise ConfigError(f"the tag {long[0][:20]!r}... has {len(long[0])} characters; shorten it to {MAX_TAG_LENGTH}")
