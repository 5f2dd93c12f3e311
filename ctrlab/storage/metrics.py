"""The curves of running jobs: (job, step, name) -> value."""

from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa

from ctrlab.storage import schema
from ctrlab.storage.database import Database
from ctrlab.storage.records import MetricRow

_table = schema.metrics
_KEY = ("job_id", "step", "name")


class MetricLog:
    """Points are written in batches and read back in order of step."""

    def __init__(self, database: Database) -> None:
        self._database = database
        insert = _insert(database)(_table)
        self._upsert = insert.on_conflict_do_update(index_elements=_KEY, set_={"value": insert.excluded.value})

    def append(self, job_id: str, rows: Iterable[MetricRow]) -> None:
        """Write points; one at the same step and name replaces the earlier, as when a job resumes from a checkpoint."""
        values = [{"job_id": job_id, "step": row.step, "name": row.name, "value": float(row.value)} for row in rows]
        if values:
            with self._database.write() as connection:
                connection.execute(self._upsert, values)

    def read(self, job_id: str, since_step: int | None = None) -> list[MetricRow]:
        """Points after `since_step` (all when None), by step, then name."""
        statement = sa.select(_table.c.step, _table.c.name, _table.c.value).where(_table.c.job_id == job_id)
        if since_step is not None:
            statement = statement.where(_table.c.step > since_step)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(_table.c.step, _table.c.name)).all()
        # SQLite keeps a NaN as NULL.
        return [MetricRow(step, name, float("nan") if value is None else value) for step, name, value in rows]


def _insert(database: Database) -> Callable[[sa.Table], Any]:
    """The `insert` with `on_conflict_do_update` of the store's dialect; each takes a moment to load."""
    if database.is_sqlite:
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        return insert_sqlite
    from sqlalchemy.dialects.postgresql import insert as insert_postgresql

    return insert_postgresql
