"""Deleting datasets, models, other results and jobs, with what depends on them; the trash, from which they can be restored."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ctrlab.errors import StorageError, UnknownNameError
from ctrlab.figures.text import plural
from ctrlab.services.annotations import Subject, free_name, name_of, subject
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, Job
from ctrlab.storage.folders import folder_bytes
from ctrlab.storage.trash import TrashEntry

#: Kinds that somebody made on purpose: they are deleted with what they were made from only when that is asked for.
_KEPT_KINDS = ("dataset", "model")
_PLURALS = {"spectra": "spectra", "sensitivity": "sensitivities"}


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """What deleting would delete.

    subjects: what was asked for. dependents: all that was made from them, directly or not.
    size_bytes: of their files.
    """

    subjects: tuple[Subject, ...]
    dependents: tuple[Artifact, ...]
    size_bytes: int

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all of them, those asked for first."""
        return tuple(found.id for found in (*self.subjects, *self.dependents))

    @property
    def models(self) -> tuple[Artifact, ...]:
        """The dependents that are models of their own, not measurements."""
        return tuple(found for found in self.dependents if found.kind in _KEPT_KINDS)

    @property
    def dependents_text(self) -> str:
        """The dependents counted by kind: "2 models, 3 evaluations"; "" where there are none."""
        counts = Counter(found.kind for found in self.dependents)
        return ", ".join(_counted(number, kind) for kind, number in counts.items())


def deletion_of(workspace: Workspace, ids: Sequence[str]) -> Deletion:
    """What deleting these artifacts and jobs would delete; nothing is changed.

    Raises:
        UnknownNameError: an id is unknown.
    """
    subjects = tuple(subject(workspace, subject_id) for subject_id in dict.fromkeys(ids))
    found = {item.id: item for item in subjects if isinstance(item, Artifact)}
    below = {child.id: child for item in found for child in workspace.store.artifacts.dependents(item)}
    dependents = tuple(child for child in below.values() if child.id not in found)
    folders = [item.folder if isinstance(item, Job) else item.path for item in (*subjects, *dependents)]
    return Deletion(subjects=subjects, dependents=dependents, size_bytes=sum(map(folder_bytes, folders)))


def delete(workspace: Workspace, ids: Sequence[str], *, cascade: bool = False, permanently: bool = False) -> TrashEntry:
    """Delete artifacts and jobs into the trash, from which `restore` brings them back for 30 days; the entry of the trash.

    Measurements of a model (spectra, sensitivity, speed, evaluations, plans) are deleted with it.

    Args:
        cascade: also delete datasets and models that were made from them.
        permanently: free the disk at once; they cannot be restored.

    Raises:
        StorageError: models depend on them and `cascade` is false, or an active job needs one of them.
        UnknownNameError: an id is unknown.
    """
    planned = deletion_of(workspace, ids)
    if not planned.subjects:
        raise StorageError("nothing was chosen; give the id of at least one dataset, model, result or job")
    if planned.models and not cascade:
        names = ", ".join(f"{model.id} ({model.name})" for model in planned.models)
        raise StorageError(f"these were made from it: {names}; delete them first, or delete it together with them")
    entry = workspace.store.deletions.delete(planned.ids)
    if permanently:
        workspace.store.trash.delete([entry])
    return entry


def trash_entries(workspace: Workspace) -> list[TrashEntry]:
    """What is in the trash, newest first."""
    return workspace.store.trash.entries()[::-1]


def restore(workspace: Workspace, name: str) -> list[Subject]:
    """Restore an entry of the trash; a name that was taken meanwhile gets a number.

    Args:
        name: the id of the entry, or of an artifact or a job in it; of several deletions the latest.

    Raises:
        UnknownNameError: nothing in the trash is called that.
        StorageError: it cannot be restored; the sentence says why.
    """
    restored = workspace.store.deletions.restore(_entry(workspace, name))
    return [_with_free_name(workspace, subject_id) for subject_id in restored]


def empty_trash(workspace: Workspace, names: Sequence[str] | None = None) -> list[TrashEntry]:
    """Delete what is in the trash for good, or only the entries named; the deleted entries."""
    chosen = trash_entries(workspace) if names is None else [_entry(workspace, name) for name in names]
    return workspace.store.trash.delete(chosen)


def _entry(workspace: Workspace, name: str) -> TrashEntry:
    entries = trash_entries(workspace)
    for entry in entries:
        if name == entry.id or name in {item.id for item in entry.items}:
            return entry
    known = ", ".join(entry.id for entry in entries[:5]) or "the trash is empty"
    raise UnknownNameError(f"nothing in the trash is called {name!r} (the latest: {known})")


def _with_free_name(workspace: Workspace, subject_id: str) -> Subject:
    found = subject(workspace, subject_id)
    if isinstance(found, Job) or found.kind not in _KEPT_KINDS:
        return found
    namesakes = [item for item in workspace.store.artifacts.list(kind=found.kind) if item.name == name_of(found)]
    if len(namesakes) < 2:
        return found
    return workspace.store.artifacts.rename(subject_id, free_name(workspace, found.kind, found.name))


def _counted(number: int, kind: str) -> str:
    return f"{number} {_PLURALS[kind]}" if kind in _PLURALS and number != 1 else plural(number, kind)
