"""Deletes artifacts and jobs into the trash, and restores them.

Their rows are written into the entry of the trash before they leave the database, and their folders follow. A crash in between
leaves folders without rows, which `ArtifactCatalogue.sweep` moves to the same entry, from which they can be restored.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from ctrlab.errors import StorageError
from ctrlab.storage import schema
from ctrlab.storage.clock import Clock, utc_now
from ctrlab.storage.database import Database
from ctrlab.storage.folders import move_folder
from ctrlab.storage.pending import PendingChanges
from ctrlab.storage.records import ACTIVE_STATES
from ctrlab.storage.trash import Trash, TrashEntry, TrashItem

_artifacts, _links, _jobs = schema.artifacts, schema.artifact_parents, schema.jobs
#: Tables with rows of an artifact or a job, and the column with its id, in the order in which rows can be inserted.
_OWNERS: tuple[tuple[sa.Table, sa.Column[str]], ...] = (
    (_artifacts, _artifacts.c.id),
    (_links, _links.c.child_id),
    (_jobs, _jobs.c.id),
    (schema.metrics, schema.metrics.c.job_id),
    (schema.annotations, schema.annotations.c.subject_id),
    (schema.job_groups, schema.job_groups.c.job_id),
)
_Rows = dict[str, list[dict[str, Any]]]


class Deletions:
    """Moves artifacts and jobs of one home to its trash and back."""

    def __init__(self, database: Database, home: Path, pending: PendingChanges, trash: Trash, now: Clock = utc_now) -> None:
        self._database = database
        self._home = home
        self._pending = pending
        self._trash = trash
        self._now = now

    def delete(self, ids: Sequence[str]) -> TrashEntry:
        """Move artifacts and jobs, which must include all that depends on them, to the trash as one entry.

        Raises:
            StorageError: one is not there, an active job is among them or needs one of them, or another artifact depends on one.
        """
        with self._database.read() as connection:  # again in the transaction; a refusal leaves no record of a change
            _refuse_if_used(connection, ids)
        with self._pending.record(ids):
            path = self._take_rows(ids)
            for subject_id in ids:
                if (folder := self._folder(subject_id)).is_dir():
                    move_folder(folder, path / subject_id)
        return next(entry for entry in self._trash.entries() if entry.path == path)

    def restore(self, entry: TrashEntry) -> tuple[str, ...]:
        """Put the artifacts and jobs of an entry back, with their ids, and remove the entry; the ids.

        Raises:
            StorageError: the entry has no rows, an artifact that they depend on is not there, or they are there already.
        """
        ids = tuple(item.id for item in entry.items)
        if not ids:
            raise StorageError(f"{entry.name} was left behind by a crash and belongs to nothing; it cannot be restored")
        rows = self._trash.rows(entry)
        self._require_room(ids, rows)
        moved = [subject_id for subject_id in ids if (entry.path / subject_id).is_dir()]
        with self._pending.record(ids):
            for subject_id in moved:
                move_folder(entry.path / subject_id, self._folder(subject_id))
            try:
                self._put_rows(rows)
            except BaseException:
                for subject_id in moved:
                    move_folder(self._folder(subject_id), entry.path / subject_id)
                raise
        self._trash.delete([entry])
        return ids

    def _folder(self, subject_id: str) -> Path:
        return self._home / ("jobs" if subject_id.startswith("job-") else "artifacts") / subject_id

    def _take_rows(self, ids: Sequence[str]) -> Path:
        """Copy the rows into a new entry of the trash and delete them; the path of the entry."""
        path: Path | None = None
        try:
            with self._database.write() as connection:
                rows = {table.name: _read(connection, table, owner, ids) for table, owner in _OWNERS}
                _refuse_if_used(connection, ids)
                path = self._trash.open_entry(_items(ids, rows), rows, self._now())
                for table, owner in reversed(_OWNERS):
                    connection.execute(sa.delete(table).where(owner.in_(ids)))
        except BaseException as error:
            if path is not None:
                self._trash.delete([entry for entry in self._trash.entries() if entry.path == path])
            if isinstance(error, exc.IntegrityError):
                raise StorageError(f"{ids[0]} has a dependent that would stay; reload the list, then delete both") from None
            raise
        return path

    def _require_room(self, ids: Sequence[str], rows: _Rows) -> None:
        with self._database.read() as connection:
            if present := _present(connection, ids):
                raise StorageError(f"{', '.join(sorted(present))} is in the store already; nothing was restored")
            parents = {row["parent_id"] for row in rows[_links.name]} - set(ids)
            if missing := parents - _present(connection, tuple(parents)):
                raise StorageError(
                    f"it was made from {', '.join(sorted(missing))}, which was deleted too; restore that first, then this"
                )

    def _put_rows(self, rows: _Rows) -> None:
        with self._database.write() as connection:
            for table, _ in _OWNERS:
                values = [_values(table, row) for row in rows.get(table.name, ())]
                if "sequence" in table.columns:
                    for row in values:
                        connection.execute(sa.insert(table).values(**row | _freed_keys(connection, table, row)))
                elif values:
                    connection.execute(sa.insert(table), values)


def _read(connection: sa.Connection, table: sa.Table, owner: sa.Column[str], ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of these owners as JSON can hold them."""
    found = connection.execute(sa.select(table).where(owner.in_(ids))).mappings().all()
    return [{column.name: _raw(connection, column, row[column.name]) for column in table.columns} for row in found]


def _raw(connection: sa.Connection, column: "sa.Column[Any]", value: Any) -> Any:
    if value is None or not isinstance(column.type, sa.TypeDecorator):
        return value
    return column.type.process_bind_param(value, connection.dialect)


def _values(table: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_read` for one row."""
    return {column.name: _value(column, row[column.name]) for column in table.columns}


def _value(column: "sa.Column[Any]", value: Any) -> Any:
    if value is None or not isinstance(column.type, sa.TypeDecorator):
        return value
    return column.type.process_result_value(value, sa.engine.default.DefaultDialect())


def _freed_keys(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of a row whose keys were taken meanwhile: a new place, or no job where its job has made the artifact again."""
    changes: dict[str, Any] = {}
    if connection.execute(sa.select(table.c.id).where(table.c.sequence == row["sequence"])).first():
        changes["sequence"] = connection.execute(sa.select(sa.func.max(table.c.sequence))).scalar_one() + 1
    if table is _artifacts:
        made = sa.select(table.c.id).where(table.c.job_id == row["job_id"], table.c.job_key == row["job_key"])
        if connection.execute(made).first():
            changes |= {"job_id": None, "job_key": None}
    return changes


def _items(ids: Sequence[str], rows: _Rows) -> list[TrashItem]:
    found = {row["id"]: TrashItem(id=row["id"], kind=row["kind"], name=row["name"]) for row in rows[_artifacts.name]}
    found |= {row["id"]: TrashItem(id=row["id"], kind="job", name=row["title"]) for row in rows[_jobs.name]}
    if missing := [subject_id for subject_id in ids if subject_id not in found]:
        raise StorageError(f"{', '.join(missing)} is not in the store any more; reload the list")
    return [found[subject_id] for subject_id in ids]


def _refuse_if_used(connection: sa.Connection, ids: Sequence[str]) -> None:
    """StorageError where an active job is among `ids`, names one of them in its settings, or has made one of them."""
    wanted = set(ids)
    makers = set(connection.execute(sa.select(_artifacts.c.job_id).where(_artifacts.c.id.in_(ids))).scalars())
    active = sa.select(_jobs.c.id, _jobs.c.title, _jobs.c.config, _jobs.c.state).where(_jobs.c.state.in_(ACTIVE_STATES))
    for row in connection.execute(active):
        used = ({row.id} | set(texts_in(row.config))) & wanted
        if used or row.id in makers:
            which = "is" if row.id in used else f"works with {', '.join(sorted(used)) or 'what it has made'} and is"
            raise StorageError(f"{row.id} ({row.title}) {which} {row.state}; cancel it or wait for its end, then delete")


def texts_in(value: Any) -> Iterable[str]:
    """Every text in the settings of a job, such as ids and paths.

    >>> sorted(texts_in({"model_id": "model-1", "seed": 0, "source": {"paths": ["a.csv"]}}))
    ['a.csv', 'model-1']
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)


def _present(connection: sa.Connection, ids: Sequence[str]) -> set[str]:
    found = [connection.execute(sa.select(table.c.id).where(table.c.id.in_(ids))).scalars() for table in (_artifacts, _jobs)]
    return {subject_id for part in found for subject_id in part}
