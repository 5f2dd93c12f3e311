"""The catalogue of datasets, models, spectra, plans and evaluations: a row each, and a folder for those with files.

A folder is moved into place before its row is written, and a row is deleted before its folder: a crash between the two
leaves a folder without a row, which `sweep` moves to the trash, and never a row without its files.
"""

import secrets
import shutil
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from ctrlab.errors import ConfigError, StorageError, UnknownNameError
from ctrlab.storage import annotations, schema
from ctrlab.storage.code_version import code_version
from ctrlab.storage.database import Database
from ctrlab.storage.duplicates import find_duplicates, link_duplicates
from ctrlab.storage.folders import INCOMING, move_folder
from ctrlab.storage.pending import PendingChanges
from ctrlab.storage.records import ID_PREFIXES, MAX_NAME_LENGTH, Artifact, ArtifactKind, NewArtifact
from ctrlab.storage.trash import Trash, TrashEntry

#: Age after which an unfinished change of a dead process is swept; the lock of a process on another machine may not be visible.
_ORPHAN_SECONDS = 3600.0

_Artifacts = list[Artifact]  # inside the class, `list` is its method
_table, _links = schema.artifacts, schema.artifact_parents


class ArtifactCatalogue:
    """Artifacts by id; see `Artifact` for what each one is."""

    def __init__(self, database: Database, root: Path, pending: PendingChanges, trash: Trash) -> None:
        self._database = database
        self._root = root
        self._pending = pending
        self._trash = trash

    def add(self, new: NewArtifact, *, job_id: str | None = None, job_key: str | None = None) -> Artifact:
        """Store a new artifact and move its files into the store.

        With `job_id` it is added once per job and `job_key` (the kind, when not given): a job that was killed right after
        adding and runs again gets the artifact it made before.

        Raises:
            ConfigError: an unknown kind or an unusable name.
            UnknownNameError: a parent that does not exist.
            StorageError: the files are missing or cannot be moved; they are then where they were.
        """
        _check(new)
        key = (job_key or new.kind) if job_id else None
        if job_id and (earlier := self._made_by(job_id, key)):
            if new.files_from is not None and new.files_from.is_dir() and not earlier.path.exists():
                move_folder(new.files_from, earlier.path)  # the row was committed, but the connection broke before the answer
            return earlier
        values: dict[str, Any] = {
            "id": self._new_id(ID_PREFIXES[new.kind]), "kind": new.kind, "name": new.name.strip(), "config": dict(new.config),
            "summary": dict(new.summary), "seed": new.seed, "code_version": code_version(), "created_at": datetime.now(UTC),
            "job_id": job_id, "job_key": key,
        }  # fmt: skip
        if new.files_from is None:
            self._insert(values, tuple(new.parents))
        else:
            with self._pending.record([values["id"]]):
                self._insert_with_files(values, tuple(new.parents), new.files_from)
        return self.get(values["id"])

    def get(self, artifact_id: str) -> Artifact:
        """The artifact with this id; UnknownNameError when there is none."""
        found = self._select(_table.c.id == artifact_id)
        if not found:
            latest = ", ".join(artifact.id for artifact in self.list(limit=5)) or "none yet"
            raise UnknownNameError(f"no artifact is called {artifact_id!r}; it may have been deleted (the latest are: {latest})")
        return found[0]

    def folder(self, artifact_id: str) -> Path:
        """Where the files of an artifact with this id are, if it has any; without a look into the database."""
        return self._root / artifact_id

    def find(self, artifact_ids: Sequence[str]) -> _Artifacts:
        """Those of the artifacts with these ids that exist, newest first."""
        return self._select(_table.c.id.in_(artifact_ids))

    def list(
        self, kind: ArtifactKind | None = None, parent: str | Sequence[str] | None = None, *, limit: int | None = None
    ) -> _Artifacts:
        """Newest first; of one kind, or made directly from `parent` (from any of several), or both."""
        conditions = [] if kind is None else [_table.c.kind == kind]
        if parent is not None:
            parents = [parent] if isinstance(parent, str) else parent
            conditions.append(_table.c.id.in_(sa.select(_links.c.child_id).where(_links.c.parent_id.in_(parents))))
        return self._select(*conditions, limit=limit)

    def present(self, ids: Collection[str]) -> set[str]:
        """Those of `ids` that there are."""
        with self._database.read() as connection:
            return set(connection.execute(sa.select(_table.c.id).where(_table.c.id.in_(ids))).scalars())

    def rename(self, artifact_id: str, name: str) -> Artifact:
        """Change the displayed name; ids never change."""
        _check_name(name)
        with self._database.write() as connection:
            connection.execute(sa.update(_table).where(_table.c.id == artifact_id).values(name=name.strip()))
        return self.get(artifact_id)

    def lineage(self, artifact_id: str) -> _Artifacts:
        """All artifacts it was made from, directly or not, oldest first, itself last."""
        return sorted(self._closure(artifact_id, _links.c.child_id, _links.c.parent_id), key=lambda item: item.created_at)

    def dependents(self, artifact_id: str) -> _Artifacts:
        """All artifacts made from it, directly or not, oldest first."""
        closure = self._closure(artifact_id, _links.c.parent_id, _links.c.child_id)
        return sorted((item for item in closure if item.id != artifact_id), key=lambda item: item.created_at)

    def delete(self, artifact_id: str, *, cascade: bool = False) -> tuple[str, ...]:
        """Delete an artifact with its files, and with `cascade` all that was made from it; the deleted ids.

        Raises:
            StorageError: other artifacts depend on it and `cascade` is false; the sentence names them.
        """
        victim, dependents = self.get(artifact_id), self.dependents(artifact_id)
        if dependents and not cascade:
            names = ", ".join(f"{item.id} ({item.name})" for item in dependents)
            raise StorageError(
                f"{victim.id} ({victim.name}) cannot be deleted because these were made from it: {names}; "
                "delete them first, or delete it together with them"
            )
        ids = (artifact_id, *(item.id for item in dependents))
        with self._pending.record(ids):
            self._delete_rows(ids)
            for deleted in ids:
                shutil.rmtree(self._root / deleted, ignore_errors=True)
        return ids

    def sweep(self, older_than_seconds: float = _ORPHAN_SECONDS, now: datetime | None = None) -> tuple[TrashEntry, ...]:
        """Move folders without a row that a crash left behind to the trash; those that were moved.

        Only folders of unfinished additions and deletions of this store are moved, and none while the catalogue is empty.
        """
        if not self._known_ids():
            return ()
        moved: list[TrashEntry] = []
        with self._pending.abandoned(older_than_seconds) as ids:
            # Read again: a change that was under way may have ended before it was locked here.
            known = self._known_ids() | self._known_jobs()
            for artifact_id in ids:
                for folder in self._folders(artifact_id):
                    if artifact_id not in known and folder.is_dir():
                        moved.append(self._trash.put(folder, now or datetime.now(UTC)))
        return tuple(moved)

    def unknown_folders(self) -> tuple[str, ...]:
        """Names of folders that belong to no artifact of this store, such as those of another database; nothing removes them."""
        folders = sorted(folder.name for folder in self._root.iterdir())
        known = self._known_ids()
        return tuple(name for name in folders if name not in known)

    def _folders(self, subject_id: str) -> tuple[Path, ...]:
        """Where files of an unfinished change may be: of an artifact, or of a job that was being deleted."""
        jobs = self._root.with_name("jobs")
        return self._root / subject_id, self._root / (INCOMING + subject_id), jobs / subject_id

    def _known_ids(self) -> set[str]:
        with self._database.read() as connection:
            return set(connection.execute(sa.select(_table.c.id)).scalars())

    def _known_jobs(self) -> set[str]:
        with self._database.read() as connection:
            return set(connection.execute(sa.select(schema.jobs.c.id)).scalars())

    def _insert_with_files(self, values: Mapping[str, Any], parents: tuple[str, ...], files_from: Path) -> None:
        folder = self._root / values["id"]
        link_duplicates(find_duplicates(files_from))
        move_folder(files_from, folder)
        try:
            self._insert(values, parents)
        except BaseException:
            move_folder(folder, files_from)
            raise

    def _delete_rows(self, ids: Sequence[str]) -> None:
        try:
            with self._database.write() as connection:
                connection.execute(sa.delete(schema.annotations).where(schema.annotations.c.subject_id.in_(ids)))
                connection.execute(sa.delete(_links).where(_links.c.child_id.in_(ids)))
                connection.execute(sa.delete(_table).where(_table.c.id.in_(ids)))
        except exc.IntegrityError:
            raise StorageError(f"{ids[0]} got a new dependent while it was being deleted; reload the list, then delete") from None

    def _insert(self, values: Mapping[str, Any], parents: tuple[str, ...]) -> None:
        links = [{"child_id": values["id"], "position": i, "parent_id": parent} for i, parent in enumerate(parents)]
        with self._database.write() as connection:
            found = set(connection.execute(sa.select(_table.c.id).where(_table.c.id.in_(parents))).scalars())
            if missing := [parent for parent in parents if parent not in found]:
                raise UnknownNameError(f"no artifact is called {', '.join(missing)}; a parent must be in the store first")
            connection.execute(sa.insert(_table).values(**values))
            if links:
                connection.execute(sa.insert(_links), links)

    def _made_by(self, job_id: str, key: str | None) -> Artifact | None:
        found = self._select(_table.c.job_id == job_id, _table.c.job_key == key)
        return found[0] if found else None

    def _new_id(self, prefix: str) -> str:
        while True:
            artifact_id = f"{prefix}-{secrets.token_hex(4)}"
            if not (self._root / artifact_id).exists() and not self._select(_table.c.id == artifact_id):
                return artifact_id

    def _select(self, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> _Artifacts:
        statement = sa.select(_table, *annotations.COLUMNS).select_from(annotations.annotated(_table)).where(*conditions)
        statement = statement.order_by(_table.c.sequence.desc()).limit(limit)
        parents: dict[str, list[str]] = defaultdict(list)
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
            links = sa.select(_links.c.child_id, _links.c.parent_id).order_by(_links.c.child_id, _links.c.position)
            if len(rows) <= 100:  # else the list of ids costs more than the table
                links = links.where(_links.c.child_id.in_([row.id for row in rows]))
            for child, parent in connection.execute(links) if rows else ():
                parents[child].append(parent)
        return [self._record(row, tuple(parents[row.id])) for row in rows]

    def _record(self, row: sa.Row[Any], parents: tuple[str, ...]) -> Artifact:
        return Artifact(
            id=row.id, kind=row.kind, name=row.name, parents=parents, config=row.config, summary=row.summary, seed=row.seed,
            code_version=row.code_version, created_at=row.created_at, path=self._root / row.id, job_id=row.job_id,
            annotation=annotations.annotation_of(row),
        )  # fmt: skip

    def _closure(self, artifact_id: str, near: sa.Column[str], far: sa.Column[str]) -> _Artifacts:
        """The artifact and all that links lead to, going from `near` to `far`."""
        reached = sa.select(sa.literal(self.get(artifact_id).id).label("id")).cte("reached", recursive=True)
        reached = reached.union(sa.select(far).where(near == reached.c.id))
        return self._select(_table.c.id.in_(sa.select(reached.c.id)))


def _check(new: NewArtifact) -> None:
    if new.kind not in ID_PREFIXES:
        raise ConfigError(f"an artifact's kind must be one of {', '.join(ID_PREFIXES)}, got {new.kind!r}")
    _check_name(new.name)
    if new.files_from is not None and not new.files_from.is_dir():
        raise StorageError(f"the folder {new.files_from} with the files of {new.name!r} does not exist; write them before adding")


def _check_name(name: str) -> None:
    if not 0 < len(name.strip()) <= MAX_NAME_LENGTH:
        raise ConfigError(f"a name must have 1 to {MAX_NAME_LENGTH} characters, got {len(name.strip())}")
