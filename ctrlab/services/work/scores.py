"""The `scores` job: a bundle where the model has none, then every row of the table."""

from typing import Any

from ctrlab.services.bundles import BUNDLE_FOLDER, BundleConfig, latest_bundle
from ctrlab.services.handlers import JobContext
from ctrlab.services.scores import SCORES_FILE, ScoresConfig, source_of
from ctrlab.services.work.parts import Parts
from ctrlab.services.work.shared import stage_folder
from ctrlab.serving.bundle.read import load_bundle
from ctrlab.serving.bundle.score import ScoreTable, score_table
from ctrlab.storage import NewArtifact


def run(config: ScoresConfig, context: JobContext) -> dict[str, Any]:
    """-> the id of the `scores`, and of the `bundle` that made them."""
    workspace = context.workspace
    parts = Parts(context, {"bundle": 1.0, "scores": 4.0})
    plain = BundleConfig(model_id=config.model_id)
    known = latest_bundle(workspace, config.model_id, plain)
    bundle_id = known.id if known else parts.do_job("bundle", "bundle", plain)["bundle"]
    made = workspace.store.artifacts.get(bundle_id)

    def scored(part: JobContext) -> dict[str, Any]:
        bundle = load_bundle(made.path / BUNDLE_FOLDER, threads=1)  # blocks run side by side
        folder = stage_folder(part, "file")
        task = ScoreTable(source=source_of(workspace, config), out=folder / SCORES_FILE, keep=config.keep)
        found = score_table(bundle, task, on_progress=part.report, should_stop=part.should_stop)
        filed = part.add_artifact(NewArtifact(
            "scores", f"Scores by {bundle.name}", parents=[config.model_id], config=config.to_dict(),
            summary=found.to_dict(), files_from=folder,
        ))  # fmt: skip
        return {"scores": filed.id}

    return {"bundle": bundle_id, **parts.do("scores", scored)}
