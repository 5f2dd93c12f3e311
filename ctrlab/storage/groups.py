"""Groups of jobs that were queued together under one name."""

import secrets
from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa

from ctrlab.errors import ConfigError, UnknownNameError
from ctrlab.storage import schema
from ctrlab.storage.database import Database
from ctrlab.storage.records import MAX_NAME_LENGTH, JobGroup

_Groups = list[JobGroup]  # inside the class, `list` is its method
_table = schema.job_groups


class JobGroups:
    """The groups of one store; a job is in one group at most."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, job_ids: Sequence[str]) -> str:
        """Make a group of these jobs, in this order; its id.

        Raises:
            ConfigError: an unusable name, or no job.
        """
        if not 0 < len(name.strip()) <= MAX_NAME_LENGTH:
            raise ConfigError(f"the name of a group must have 1 to {MAX_NAME_LENGTH} characters, got {len(name.strip())}")
        if not job_ids:
            raise ConfigError("a group needs at least one job")
        group_id = f"group-{secrets.token_hex(4)}"
        rows = [
            {"job_id": job_id, "group_id": group_id, "name": name.strip(), "position": position}
            for position, job_id in enumerate(job_ids)
        ]
        with self._database.write() as connection:
            connection.execute(sa.insert(_table), rows)
        return group_id

    def list(self) -> _Groups:
        """All groups that have a job, newest first."""
        with self._database.read() as connection:
            newest = sa.select(_table, schema.jobs.c.sequence).join(schema.jobs, schema.jobs.c.id == _table.c.job_id)
            rows = connection.execute(newest.order_by(_table.c.position)).all()
        members: dict[tuple[str, str], list[sa.Row[tuple[object, ...]]]] = defaultdict(list)
        for row in rows:
            members[row.group_id, row.name].append(row)
        ordered = sorted(members.items(), key=lambda item: max(row.sequence for row in item[1]), reverse=True)
        return [JobGroup(id=key[0], name=key[1], job_ids=tuple(row.job_id for row in found)) for key, found in ordered]

    def get(self, group_id: str) -> JobGroup:
        """The group with this id; UnknownNameError when there is none."""
        found = next((group for group in self.list() if group.id == group_id), None)
        if found is None:
            raise UnknownNameError(f"no group of jobs is called {group_id!r}; its jobs may have been deleted")
        return found
