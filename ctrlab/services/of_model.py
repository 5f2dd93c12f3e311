"""Helpers of the services of one stored model: queueing a job about it, and finding its newest result."""

from collections.abc import Sequence
from typing import Protocol

from ctrlab.services.models import require_artifact
from ctrlab.services.outside import abilities
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.storage.records import ArtifactKind


class AboutModel(Protocol):
    """A job's config with a model; ids of other artifacts are in fields such as `spectra_id`."""

    @property
    def model_id(self) -> str: ...

    def to_dict(self) -> dict[str, object]: ...


def submit_for_model(workspace: Workspace, kind: str, title: str, config: AboutModel, *, needs: tuple[str, ...] = ()) -> str:
    """Queue a job of `kind` about a model; returns the job id.

    Args:
        title: with {model} for the model's name.
        needs: kinds of the other artifacts that the config names, each in its field `<kind>_id`.

    Raises:
        UnknownNameError, ConfigError: an id is unknown, is one of another kind, or the model's kind does not allow the job.
    """
    model = require_artifact(workspace, config.model_id, "model")
    abilities(workspace, model).require_for(kind)
    for needed in needs:
        require_artifact(workspace, getattr(config, f"{needed}_id"), needed)
    return workspace.store.jobs.submit(kind, title.format(model=model.name), config.to_dict()).id


def newest_of_model(workspace: Workspace, kind: ArtifactKind, model_id: str) -> Artifact | None:
    """The newest artifact of `kind` that was made from a model; None where there is none."""
    return next(iter(workspace.store.artifacts.list(kind=kind, parent=model_id)), None)


def newest_of_models(workspace: Workspace, kind: ArtifactKind, model_ids: Sequence[str]) -> dict[str, Artifact]:
    """{model id: the newest artifact of `kind` that was made from it}, by one query; models without one are absent."""
    wanted, found = set(model_ids), dict[str, Artifact]()
    for artifact in workspace.store.artifacts.list(kind=kind, parent=list(wanted)):
        for model_id in wanted.intersection(artifact.parents) - found.keys():
            found[model_id] = artifact
    return found
