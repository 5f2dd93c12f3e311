"""The Jobs page: search, groups, the form of a sweep, and managing one job."""

import pytest

from ctrlab.services import sweeps
from ctrlab.services.annotations import annotate
from ctrlab.services.sweeps import SweepConfig
from ctrlab.services.workspace import Workspace
from tests.support.workspaces import add_compressed, deepfm_workspace


@pytest.fixture
def ids(workspace: Workspace) -> dict[str, str]:
    """A model with spectra that hold gradients."""
    return deepfm_workspace(workspace.home, num_tables=3, mlp_dims=(40, 40), gradients=True)


def titles(app) -> list[str]:
    return [link.label for link in app.get("page_link") if link.label.removeprefix(":material/star: ").startswith("Train")]


def test_a_sweep_is_previewed_queued_followed_and_cancelled_as_one(open_page, workspace: Workspace, ids: dict[str, str]) -> None:
    workspace.store.jobs.submit("train", "Train", {})
    app = open_page("Jobs", model=ids["model"])
    app.session_state["sweep"] = True
    app.run()
    app.text_input(key="sweep-times").set_value("2, 3, 1000").run()
    assert "Left out: AFM 1000x: no plan has at most" in app.warning[0].value
    app.number_input(key="sweep-seeds").set_value(2).run()
    assert app.button(key="queue-sweep").label == "Queue 4 runs"
    app.text_input(key="sweep-times").set_value("two").run()
    assert "must be numbers separated by commas" in app.error[0].value
    app.text_input(key="sweep-times").set_value("2, 3").run()
    app.button(key="queue-sweep").click().run()
    (group,) = sweeps.list_groups(workspace)
    assert (len(group.jobs), group.active) == (4, 4)
    app.button(key=f"cancel-{group.id}").click().run()
    assert sweeps.get_group(workspace, group.id).active == 0
    assert not app.exception and not app.error


def test_a_group_leads_to_the_comparison_of_its_models_with_the_original(
    open_page, workspace: Workspace, ids: dict[str, str]
) -> None:
    sweeps.submit_sweep(workspace, sweeps.plan_sweep(workspace, SweepConfig(model_id=ids["model"], times=(2.0, 3.0))))
    for made in (add_compressed(workspace, ids, "One").id, "model-deleted0"):
        job = workspace.store.jobs.claim("worker")
        assert job
        workspace.store.jobs.finish(job, "succeeded", result={"model": made})
    app = open_page("Jobs", model=ids["model"])
    assert "Compare 1" in [link.label for link in app.get("page_link")]


def test_jobs_are_found_by_words_and_more_are_shown_on_demand(open_page, workspace: Workspace) -> None:
    for number in range(45):
        workspace.store.jobs.submit("train", f"Train {number}", {})
    annotate(workspace, workspace.store.jobs.list()[0].id, star=True, note="for the talk")
    app = open_page("Jobs")
    assert len(titles(app)) == 40
    app.button(key="more-jobs").click().run()
    assert len(titles(app)) == 45
    app.text_input(key="jobs-search").set_value("talk").run()
    assert titles(app) == [":material/star: Train 44"]


def test_a_job_is_deleted_from_its_own_page_and_undone(open_page, workspace: Workspace) -> None:
    job = workspace.store.jobs.request_cancel(workspace.store.jobs.submit("train", "Train", {}).id)
    app = open_page("Jobs", job=job.id)
    app.session_state[f"manage-{job.id}"] = True
    app.session_state[f"delete-{job.id}"] = True
    app.run()
    app.button(key=f"confirm-{job.id}").click().run()
    assert workspace.store.jobs.list() == [] and not app.exception
    app.button(key="undo-deletion").click().run()
    assert [found.id for found in workspace.store.jobs.list()] == [job.id]
