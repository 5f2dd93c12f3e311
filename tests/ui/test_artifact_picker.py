"""The select boxes of datasets and models: what the browser sends back is a label, which must name one artifact for good."""

from datetime import UTC, datetime, timedelta

import pytest

from ctrlab.services.workspace import Workspace
from ctrlab.storage import NewArtifact
from ctrlab.ui import format
from ctrlab.ui.components.artifact_picker import unique_labels


@pytest.fixture
def twin(workspace: Workspace, model: str) -> str:
    """Id of a second model with the name and the size of `model`."""
    first = workspace.store.artifacts.get(model)
    return workspace.store.artifacts.add(
        NewArtifact("model", first.name, parents=first.parents, config=first.config, summary=first.summary, seed=1)
    ).id


def test_models_of_one_name_have_different_labels_and_each_can_be_chosen(open_page, workspace, model: str, twin: str) -> None:
    labels = unique_labels([workspace.store.artifacts.get(item) for item in (model, twin)])
    assert len(set(labels.values())) == 2
    app = open_page("Model", model=model)
    for chosen in (twin, model):
        app.selectbox(key="pick-model").set_value(chosen).run()
        assert not app.exception
        assert app.query_params["model"] == chosen
        app.pills(key="architecture").set_value("dcnv2").run()  # any other widget sends the label of the box again
        assert app.query_params["model"] == chosen
        app.pills(key="architecture").set_value("deepfm").run()


def test_labels_do_not_change_with_time(open_page, workspace, model: str, monkeypatch) -> None:
    app = open_page("Model", model=model)
    before = list(app.selectbox(key="pick-model").options)
    later = datetime.now(UTC) + timedelta(minutes=5)
    monkeypatch.setattr(format, "ago", lambda moment, now=None, ago=format.ago: ago(moment, later))
    app.run()
    assert list(app.selectbox(key="pick-model").options) == before
    assert app.query_params["model"] == model


def test_a_label_that_is_no_option_any_more_is_refused(open_page, model: str) -> None:
    app = open_page("Model", model=model)
    box, stale = app.selectbox(key="pick-model"), "First DeepFM, 5 min ago"
    box.options.append(stale)
    box.set_value(stale).run()
    assert not app.exception and not app.warning
    assert app.query_params["model"] == model
    assert app.selectbox(key="pick-model").value == model
