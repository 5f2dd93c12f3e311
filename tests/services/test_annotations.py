"""Names, notes, tags, stars and the archive of artifacts and jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ctrlab.errors import ConfigError, UnknownNameError
from ctrlab.services.annotations import all_tags, annotate, matches
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.storage import Annotation, NewArtifact


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.delenv("CTRLAB_STORE_URL", raising=False)
    workspace = open_workspace(tmp_path / "home")
    yield workspace
    workspace.store.close()


def add(workspace: Workspace, name: str) -> str:
    return workspace.store.artifacts.add(NewArtifact("model", name)).id


def test_what_is_given_changes_and_the_rest_stays_for_models_and_jobs_alike(workspace: Workspace) -> None:
    model, job = add(workspace, "DeepFM"), workspace.store.jobs.submit("train", "Train DeepFM", {}).id
    for subject_id in (model, job):
        annotate(workspace, subject_id, note="for the talk", tags=["paper", " paper", "talk"], star=True)
        found = annotate(workspace, subject_id, name="Best", archived=True)
        assert found.annotation == Annotation(note="for the talk", tags=("paper", "talk"), star=True, archived=True)
    assert workspace.store.artifacts.list("model")[0].annotation.star
    assert [found.annotation.tags for found in workspace.store.jobs.list()] == [("paper", "talk")]
    assert (workspace.store.artifacts.get(model).name, workspace.store.jobs.get(job).title) == ("Best", "Best")
    assert annotate(workspace, model, note="", tags=(), star=False, archived=False).annotation == Annotation()


def test_a_taken_name_a_long_tag_and_an_unknown_id_are_refused_in_a_sentence(workspace: Workspace) -> None:
    first, second = add(workspace, "DeepFM"), add(workspace, "DCN")
    with pytest.raises(ConfigError, match=f"another model, {first}, is called 'DeepFM'; choose another name"):
        annotate(workspace, second, name=" DeepFM ")
    assert annotate(workspace, first, name="DeepFM").name == "DeepFM"
    with pytest.raises(ConfigError, match="shorten it to 60"):
        annotate(workspace, second, tags=["x" * 61])
    with pytest.raises(UnknownNameError, match="job-00000000"):
        annotate(workspace, "job-00000000", star=True)


def test_a_search_finds_every_word_in_name_id_note_and_tags(workspace: Workspace) -> None:
    found = annotate(workspace, add(workspace, "DeepFM on Avazu"), note="Rank 16", tags=["Paper"])
    assert all(matches(found, text) for text in ("", "avazu deepfm", "rank paper", found.id))
    assert not matches(found, "avazu criteo")
    assert all_tags([found, annotate(workspace, add(workspace, "DCN"), tags=["a"])]) == ["Paper", "a"]


def test_a_store_that_lacks_a_table_of_this_version_gets_it(workspace: Workspace) -> None:
    with workspace.store.database.write() as connection:
        connection.execute(sa.text("DROP TABLE annotations"))
    workspace.store.close()
    again = open_workspace(workspace.home)
    assert annotate(again, add(again, "DeepFM"), star=True).annotation.star
    again.store.close()
