import pytest

from ctrlab.data.schema import FeatureSchema, ListFeature
from ctrlab.models.base import build_model
from ctrlab.models.configs import MODELS
from ctrlab.services.workspace import Workspace
from ctrlab.storage import MetricRow, NewArtifact
from tests.support.workspaces import add_evaluation, deepfm_workspace

SCHEMA = FeatureSchema(
    field_names=("ad_id", "site"), field_dims=(1202, 50), value_names=("price",), fingerprint="f",
    lists=(ListFeature(name="seen", length=4, shares="ad_id"),),
)  # fmt: skip


@pytest.fixture
def dataset_with_lists(workspace: Workspace) -> str:
    summary = {"rows": {"train": 8000, "valid": 1000}, "ctr": {"train": 0.2}, "schema": SCHEMA.to_dict(), "fingerprint": "f"}
    return workspace.store.artifacts.add(NewArtifact("dataset", "Ads", summary=summary, seed=0)).id


def test_the_form_builds_every_registered_model(open_page, workspace: Workspace, dataset_with_lists: str) -> None:
    app = open_page("Model", dataset=dataset_with_lists)
    for number, name in enumerate(MODELS.names(), start=1):
        app.pills(key="architecture").set_value(name).run()
        app.button(key="train").click().run()
        assert not app.exception and not app.error, name
        job, *others = workspace.store.jobs.list()
        assert job.config["architecture"] == name and len(others) == number - 1
        model = build_model(MODELS[name].config_class.from_dict(job.config["model"]), SCHEMA)
        assert model.config == MODELS[name].config_class()
        workspace.store.jobs.request_cancel(job.id)  # the button is disabled while a model is being trained


def test_settings_of_an_architecture_reach_the_job(open_page, workspace: Workspace, dataset_with_lists: str) -> None:
    app = open_page("Model", dataset=dataset_with_lists)
    app.pills(key="architecture").set_value("dcnv2").run()
    app.number_input(key="model-dcnv2-cross_layers").set_value(5).run()
    app.button(key="train").click().run()
    (job,) = workspace.store.jobs.list()
    assert job.config["model"]["cross_layers"] == 5


def test_an_architecture_for_lists_is_refused_without_list_fields(open_page, dataset: str) -> None:
    app = open_page("Model", dataset=dataset)
    app.pills(key="architecture").set_value("din").run()
    assert "list" in app.info[0].value
    assert app.button(key="train").disabled


def test_the_selected_model_is_drawn_with_its_blocks(open_page, model: str) -> None:
    app = open_page("Model", model=model)
    assert any("parameters in 3 blocks" in caption.value and "not computed yet" in caption.value for caption in app.caption)


def test_settings_that_follow_from_the_rows_are_said_beside_the_button(open_page, dataset_with_lists: str) -> None:
    app = open_page("Model", dataset=dataset_with_lists)
    assert "On Ads, from 8.00 k rows and 1.60 k clicks: batch 64, up to 20 epochs with early stopping, best by log loss." in [
        caption.value for caption in app.caption
    ]


def test_what_speaks_against_a_model_is_said_where_it_is_shown(open_page, workspace: Workspace, model: str) -> None:
    add_evaluation(workspace, model, auc=0.44)
    app = open_page("Model", model=model)
    assert any("below 0.5" in warning.value for warning in app.warning)


def test_the_learning_curve_stays_with_the_model(open_page, workspace: Workspace, dataset: str) -> None:
    ids = deepfm_workspace(workspace.home, num_tables=3, mlp_dims=(8, 8))
    first = workspace.store.artifacts.get(ids["model"])
    job = workspace.store.jobs.submit("train", "Train", {})
    workspace.store.metrics.append(job.id, [MetricRow(100, "train_loss", 0.4), MetricRow(100, "valid_auc", 0.71)])
    workspace.store.jobs.request_cancel(job.id)  # ended, so that the page does not show the job itself
    trained = NewArtifact("model", "Trained", parents=first.parents, config=first.config, summary=first.summary)
    app = open_page("Model", model=workspace.store.artifacts.add(trained, job_id=job.id).id)
    assert not app.exception and any("best validation AUC 0.7100 at step 100" in caption.value for caption in app.caption)
    assert not any("best validation AUC" in caption.value for caption in open_page("Model", model=first.id).caption)


def test_without_a_dataset_one_is_chosen_on_the_page(open_page, dataset: str) -> None:
    app = open_page("Model")
    app.selectbox(key="pick-dataset").set_value(dataset).run()
    assert app.query_params["dataset"] in (dataset, [dataset]) and app.button(key="train")
