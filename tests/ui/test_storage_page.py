"""The Storage page: the table of what is stored, its actions, deleting with undo, the trash, and freeing disk."""

import zlib

import pytest

from ctrlab.services.annotations import annotate
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Annotation, NewArtifact


@pytest.fixture
def second(workspace: Workspace, model: str) -> str:
    """Id of a model made from `model`."""
    first = workspace.store.artifacts.get(model)
    new = NewArtifact("model", "Second", parents=[model], config=first.config, summary=first.summary)
    return workspace.store.artifacts.add(new).id


def choose(app, *ids: str, of: list[str]) -> None:
    """Choose rows of the table that lists the ids `of`."""
    rows = [of.index(model_id) for model_id in ids]
    app.session_state[f"storage-rows-{zlib.crc32(','.join(of).encode())}"] = {"selection": {"rows": rows}}
    app.run()
    assert not app.exception


def test_a_chosen_row_is_renamed_noted_tagged_starred_and_archived(
    open_page, workspace: Workspace, model: str, second: str
) -> None:
    app = open_page("Storage")
    assert list(app.dataframe[0].value["Name"]) == ["Second", "First DeepFM"]
    choose(app, model, of=[second, model])
    app.text_input(key=f"name-{model}").set_value("Best")
    app.text_area(key=f"note-{model}").set_value("for the talk")
    app.button[[button.label for button in app.button].index("Save")].click().run()
    app.button(key=f"star-{model}").click().run()
    app.button(key=f"archived-{model}").click().run()
    found = workspace.store.artifacts.get(model)
    assert (found.name, found.annotation) == ("Best", Annotation(note="for the talk", star=True, archived=True))
    assert list(app.dataframe[0].value["Name"]) == ["Second"]
    app.toggle(key="archived-Models").set_value(True).run()
    assert list(app.dataframe[0].value["Name"]) == ["Best"]
    assert app.query_params["archived"] in ("1", ["1"])
    page = open_page("Model")
    assert len(page.selectbox(key="pick-model").options) == 1  # an archived model is not offered, unless it is selected
    assert len(open_page("Model", model=model).selectbox(key="pick-model").options) == 2


def test_deleting_shows_what_goes_with_it_and_is_undone(open_page, workspace: Workspace, model: str, second: str) -> None:
    app = open_page("Storage", model=model)
    choose(app, model, of=[second, model])
    app.session_state[f"delete-{model}"] = True
    app.run()
    assert any("Models made from it: Second" in warning.value for warning in app.warning)
    app.button(key=f"confirm-{model}").click().run()
    assert workspace.store.artifacts.list("model") == []
    assert "model" not in app.query_params
    assert "First DeepFM" in app.success[0].value
    app.button(key="undo-deletion").click().run()
    assert {item.id for item in workspace.store.artifacts.list("model")} == {model, second}
    assert not app.success


def test_a_search_of_words_and_tags_narrows_the_table_and_is_in_the_address(
    open_page, workspace: Workspace, model: str, second: str
) -> None:
    annotate(workspace, model, tags=["paper"])
    app = open_page("Storage", tags="paper")
    assert list(app.dataframe[0].value["Name"]) == ["First DeepFM"]
    app.multiselect(key="tags-Models").set_value([]).run()
    app.text_input(key="find-Models").set_value("second").run()
    assert list(app.dataframe[0].value["Name"]) == ["Second"]
    assert app.query_params["find"] in ("second", ["second"])
    app.text_input(key="find-Models").set_value("nothing like this").run()
    assert "No models match." in [caption.value for caption in app.caption]


def test_the_trash_restores_and_the_free_panel_frees_what_it_says(
    open_page, workspace: Workspace, model: str, second: str
) -> None:
    job = workspace.store.jobs.submit("train", "Train", {})
    (job.checkpoint_folder).mkdir()
    (job.checkpoint_folder / "state").write_bytes(b"x" * 5000)
    workspace.store.jobs.request_cancel(job.id)
    entry = workspace.store.deletions.delete([second])
    app = open_page("Storage", kind="Trash")
    app.button(key=f"restore-{entry.id}").click().run()
    assert len(workspace.store.artifacts.list("model")) == 2
    app.session_state["free-space"] = True
    app.run()
    assert app.button(key="free-now").label == "Free 5.00 kB"
    app.button(key="free-now").click().run()
    assert "Freed 5.00 kB." in [success.value for success in app.success]
    assert not job.checkpoint_folder.exists()
