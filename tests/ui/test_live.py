"""What every page says of jobs: below the button that queued them, and in sidebar, toast and title when they end."""

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig
from ctrlab.services.datasets import submit_encode
from ctrlab.services.models import TrainConfig, submit_train
from ctrlab.services.workspace import Workspace
from tests.support.workspaces import add_evaluation


@pytest.fixture
def training(workspace: Workspace, dataset: str) -> str:
    """Id of a queued training."""
    return submit_train(workspace, TrainConfig(dataset_id=dataset, architecture="deepfm"))


def end(workspace: Workspace, job_id: str, state: str, **ending: Any) -> None:
    """Run the job to its end, as a worker does."""
    claimed = workspace.store.jobs.claim("tester", job_id)
    assert claimed is not None
    workspace.store.jobs.finish(claimed, state, **ending)


def places(app: AppTest) -> list[str]:
    """Keys of the buttons of the page and kinds of its other elements, top to bottom."""
    return [getattr(element, "key", None) or element.type for element in app.main if element.type not in ("unknown",)]


def sidebar_text(app: AppTest) -> str:
    return " ".join(str(element.proto) for element in app.sidebar)


def test_the_progress_of_a_training_is_below_its_button(open_page, training: str, dataset: str) -> None:
    app = open_page("Model", dataset=dataset, job=training)
    order = places(app)
    assert order.index("train") < order.index(f"cancel-{training}")


def test_a_failed_training_says_why_below_its_button_and_is_dismissed(open_page, workspace, training: str, dataset: str) -> None:
    end(workspace, training, "failed", error="the disk is full", error_expected=True)
    app = open_page("Model", dataset=dataset, job=training)
    order = places(app)
    assert order.index("train") < order.index(f"dismiss-{training}")
    assert "The disk is full." in [error.value for error in app.error]
    app.button(key=f"dismiss-{training}").click().run()
    assert not app.error and "job" not in app.query_params


def test_a_failed_encoding_says_why_where_the_form_is(open_page, workspace: Workspace, dataset: str, tmp_path) -> None:
    table = tmp_path / "clicks.csv"
    table.write_text("click,ad\n1,a\n0,b\n")
    columns = (ColumnConfig(name="click", role="label"), ColumnConfig(name="ad", role="categorical"))
    config = DatasetConfig(name="clicks", source=SourceConfig(paths=(str(table),)), columns=columns)
    job = submit_encode(workspace, config)
    end(workspace, job, "failed", error="the file is gone", error_expected=True)
    app = open_page("Data", dataset=dataset, job=job)
    order = places(app)
    assert order.index("data-way") < order.index("open-sample-data") < order.index(f"dismiss-{job}") < order.index("metric")
    assert "The file is gone." in [error.value for error in app.error]


def test_a_trained_model_is_announced_where_it_was_ordered_and_selected(
    open_page, workspace: Workspace, training: str, dataset: str, model: str
) -> None:
    app = open_page("Model", dataset=dataset, job=training)
    add_evaluation(workspace, model, auc=0.7777)
    end(workspace, training, "succeeded", result={"model": model})
    app.run()
    assert app.query_params["model"] == model
    assert any("is ready and selected" in found.value and "0.7777" in found.value for found in app.success)
    order = places(app)
    assert order.index("train") < order.index("success")


@pytest.mark.parametrize("name", ["Home", "Data", "Learn", "Compare"])
def test_the_end_of_a_job_is_a_toast_on_every_page_and_the_badge_goes(
    open_page, workspace: Workspace, training: str, dataset: str, model: str, name: str
) -> None:
    app = open_page(name, dataset=dataset)
    assert "1 active" in sidebar_text(app) and not app.toast
    add_evaluation(workspace, model, auc=0.7777)
    end(workspace, training, "succeeded", result={"model": model})
    app.run()
    assert ["0.7777" in toast.value and "done" in toast.value for toast in app.toast] == [True]
    assert "active" not in sidebar_text(app)
    app.run()
    assert not app.toast


def test_a_done_message_does_not_travel_to_another_session(open_page, workspace, training: str, dataset: str, model: str) -> None:
    end(workspace, training, "succeeded", result={"model": model})
    app = open_page("Model", dataset=dataset, model=model, job=training)
    assert not app.success and "job" not in app.query_params
