"""Names, notes, tags, stars and the archive of datasets, models, other results, and jobs."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from ctrlab.errors import ConfigError
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, Job
from ctrlab.storage.records import MAX_NAME_LENGTH, ArtifactKind

Subject = Artifact | Job


def subject(workspace: Workspace, subject_id: str) -> Subject:
    """The artifact or the job with this id; UnknownNameError where there is none."""
    jobs, artifacts = workspace.store.jobs, workspace.store.artifacts
    return jobs.get(subject_id) if subject_id.startswith("job-") else artifacts.get(subject_id)


def annotate(
    workspace: Workspace,
    subject_id: str,
    *,
    name: str | None = None,
    note: str | None = None,
    tags: Sequence[str] | None = None,
    star: bool | None = None,
    archived: bool | None = None,
) -> Subject:
    """Change what is displayed of an artifact or a job; what is None stays as it is.

    Args:
        name: 1 to 200 characters that no other artifact of its kind has; the title of a job.
        note: free text; "" removes it.
        tags: all its tags; () removes them.
        star: whether it is a favourite.
        archived: whether lists leave it out unless they are asked for archived ones.

    Raises:
        UnknownNameError: there is no such artifact or job.
        ConfigError: an unusable or taken name, or a note or tags that are too long.
    """
    found = subject(workspace, subject_id)
    if name is not None and name.strip() != name_of(found):
        _rename(workspace, found, name)
    changes = {"note": note, "tags": None if tags is None else tuple(tags), "star": star, "archived": archived}
    workspace.store.annotations.change(subject_id, **{key: value for key, value in changes.items() if value is not None})
    return subject(workspace, subject_id)


def name_of(found: Subject) -> str:
    """The name of an artifact, the title of a job."""
    return found.title if isinstance(found, Job) else found.name


def matches(found: Subject, text: str) -> bool:
    """Whether every word of `text` is in the name, the id, the note or a tag, in either case; every one matches ""."""
    searched = " ".join((name_of(found), found.id, found.annotation.note, *found.annotation.tags)).casefold()
    return all(word in searched for word in text.casefold().split())


_S = TypeVar("_S", bound=Artifact | Job)


def select(
    subjects: Iterable[_S], search: str = "", *, tags: Sequence[str] = (), starred: bool = False, archived: bool = False
) -> list[_S]:
    """Those that match a search, in their order.

    Args:
        search: as in `matches`.
        tags: all of which they have.
        starred: only favourites.
        archived: only archived ones; else only those that are not.
    """

    def wanted(found: _S) -> bool:
        annotation = found.annotation
        return annotation.archived == archived and (annotation.star or not starred) and set(tags) <= set(annotation.tags)

    return [found for found in subjects if wanted(found) and matches(found, search)]


def unarchived(subjects: Iterable[_S], selected: str | None = None) -> list[_S]:
    """Those that are not archived, and the selected one whether it is or not: what a page offers to choose from."""
    return [found for found in subjects if not found.annotation.archived or found.id == selected]


def all_tags(subjects: Iterable[Subject]) -> list[str]:
    """The tags in use, in alphabetical order."""
    return sorted({tag for found in subjects for tag in found.annotation.tags})


def free_name(workspace: Workspace, kind: ArtifactKind, wanted: str) -> str:
    """`wanted`, numbered where an artifact of `kind` has that name: "DeepFM on Avazu", then "DeepFM on Avazu, 2"."""
    wanted = wanted.strip()[:MAX_NAME_LENGTH].strip()
    taken = {artifact.name for artifact in workspace.store.artifacts.list(kind=kind)}
    number, name = 1, wanted
    while name in taken:
        number += 1
        end = f", {number}"
        name = wanted[: MAX_NAME_LENGTH - len(end)] + end
    return name


def _rename(workspace: Workspace, found: Subject, name: str) -> None:
    if isinstance(found, Job):
        workspace.store.jobs.rename(found.id, name)
        return
    others = workspace.store.artifacts.list(kind=found.kind)
    if taken := next((other for other in others if other.name == name.strip() and other.id != found.id), None):
        raise ConfigError(f"another {found.kind}, {taken.id}, is called {taken.name!r}; choose another name")
    workspace.store.artifacts.rename(found.id, name)
