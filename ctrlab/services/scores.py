"""Scores: the probability of a click for rows of a table, by a model's bundle."""

from dataclasses import dataclass

from ctrlab.config import Config, option
from ctrlab.data.configs import SourceConfig
from ctrlab.services.handlers import JOB_HANDLERS
from ctrlab.services.of_model import submit_for_model
from ctrlab.services.paths import input_path
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact

#: Inside an artifact of kind `scores`.
SCORES_FILE = "scores.csv"


@JOB_HANDLERS.register(
    "scores",
    builder="ctrlab.services.work.scores:run",
    title="Score a table",
    description="The probability of a click for every row of a table, which needs no label.",
)
@dataclass(frozen=True, kw_only=True)
class ScoresConfig(Config):
    """Which model, and the table.

    uploaded: the file is in the workspace's upload folder.
    """

    model_id: str
    path: str
    keep: tuple[str, ...] = option((), label="Columns to keep", help="Copied beside the probabilities, for example an id.")
    uploaded: bool = False


def submit_scores(workspace: Workspace, config: ScoresConfig) -> str:
    """Queue the scoring; the job's result holds the id of its `scores`.

    Raises:
        DataError: the path is one of the workspace's own files.
    """
    input_path(workspace, config.path, uploaded=config.uploaded)
    return submit_for_model(workspace, "scores", "Score rows with {model}", config)


def latest_scores(workspace: Workspace, model_id: str) -> Artifact | None:
    """The newest scores by a model; its summary has `rows`, `mean` and `notes`."""
    return next(iter(workspace.store.artifacts.list(kind="scores", parent=model_id)), None)


def source_of(workspace: Workspace, config: ScoresConfig) -> SourceConfig:
    """The table that a job scores."""
    return SourceConfig(paths=(str(input_path(workspace, config.path, uploaded=config.uploaded)),))
