"""Managing what is stored by verbs: the list, the marks, deleting with a preview, the trash, disk."""

import json
from pathlib import Path

import pytest

from ctrlab.__main__ import main
from ctrlab.services.workspace import open_workspace
from ctrlab.storage import NewArtifact
from tests.support.workspaces import add_compressed, add_evaluation, deepfm_workspace


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def ids(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A dataset, a model with spectra, and a compressed one with a measurement."""
    monkeypatch.delenv("CTRLAB_STORE_URL", raising=False)
    ids = deepfm_workspace(home, num_tables=3, mlp_dims=(40, 40))
    workspace = open_workspace(home)
    ids["compressed"] = add_compressed(workspace, ids).id
    ids["evaluation"] = add_evaluation(workspace, ids["compressed"], auc=0.75).id
    ids["job"] = workspace.store.jobs.request_cancel(workspace.store.jobs.submit("train", "Train", {}).id).id
    workspace.store.close()
    return ids


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]):
    """The object that a verb prints with --json."""

    def call(*words: str) -> dict:
        main([*words, "--json", "--home", str(home)])
        return json.loads(capsys.readouterr().out)

    return call


def test_marks_are_set_listed_and_searched_and_work_for_models_datasets_and_jobs(run, ids: dict[str, str]) -> None:
    run("models", "rename", ids["compressed"], "Small")
    run("models", "note", ids["compressed"], "for the talk")
    run("models", "tag", ids["compressed"], "paper", "talk")
    run("models", "tag", ids["compressed"], "talk", "--remove")
    run("models", "star", ids["compressed"])
    run("models", "archive", ids["model"])
    (listed,) = run("models", "list", "--search", "SMALL talk", "--tag", "paper", "--starred")["models"]
    assert listed == {
        "id": ids["compressed"], "name": "Small", "role": "compressed", "auc": 0.75, "bytes": listed["bytes"],
        "note": "for the talk", "tags": ["paper"], "star": True, "archived": False,
    }  # fmt: skip
    assert [model["id"] for model in run("models", "list", "--archived")["models"]] == [ids["model"]]
    run("data", "tag", ids["dataset"], "mine")
    assert [data["id"] for data in run("data", "list", "--tag", "mine")["datasets"]] == [ids["dataset"]]
    run("jobs", "rename", ids["job"], "First", "try")
    run("jobs", "star", ids["job"])
    assert [job["title"] for job in run("jobs", "--starred")["jobs"]] == ["First try"]
    assert "takes one id" in run("jobs", "cancel", ids["job"], ids["job"])["error"]


def test_deleting_shows_what_depends_on_it_goes_to_the_trash_and_comes_back(run, ids: dict[str, str]) -> None:
    planned = run("models", "delete", ids["model"], "--dry-run")
    assert set(planned["would_delete"]) >= {ids[name] for name in ("model", "spectra", "compressed", "evaluation")}
    assert not {ids["dataset"], ids["job"]} & set(planned["would_delete"])
    assert ids["compressed"] in run("models", "delete", ids["model"])["error"]
    deleted = run("models", "delete", ids["model"], "--cascade")
    assert set(deleted["deleted"]) == set(planned["would_delete"]) and deleted["bytes"] > 0
    assert run("models", "list")["models"] == []
    assert [entry["id"] for entry in run("storage")["trash"]] == [deleted["trash"]]
    run("models", "restore", ids["model"])
    assert len(run("models", "list")["models"]) == 2
    run("jobs", "delete", ids["job"])
    assert run("jobs")["jobs"] == []


def test_clean_frees_what_the_dry_run_says(run, home: Path, ids: dict[str, str]) -> None:
    run("models", "delete", ids["model"], "--cascade")
    assert run("clean", "--only", "checkpoints")["freed"] == []
    (planned,) = run("clean", "--dry-run")["would_free"]
    assert (planned["what"], run("clean")["freed"]) == ("trash", [planned])
    assert list((home / "trash").iterdir()) == []
    assert [use["size_bytes"] for use in run("storage")["uses"] if use["kind"] in ("Models", "Spectra", "Trash")] == [0, 0, 0]


def test_the_tables_for_people_have_sizes_and_the_way_back(home: Path, ids: dict[str, str], capsys) -> None:
    workspace = open_workspace(home)
    workspace.store.artifacts.add(NewArtifact("dataset", "Empty", summary={"rows": {"train": 1}}))
    workspace.store.close()
    for words in (
        ["models", "list"],
        ["data", "list"],
        ["jobs"],
        ["models", "delete", ids["compressed"]],
        ["storage"],
        ["clean"],
    ):
        assert main([*words, "--home", str(home)]) == 0
    out = capsys.readouterr().out
    assert "deleted DeepFM, AFM with 1 " in out and "1 evaluation" in out
    assert f"0 B in the trash; `restore {ids['compressed']}` brings it back" in out
    assert "What was deleted cannot be restored any more." in out
