"""`sweep` and `groups`: the runs are shown, queued for a worker, and followed as one."""

import json
from pathlib import Path

import pytest

from ctrlab.__main__ import main
from tests.support.workspaces import deepfm_workspace


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The object that a verb prints with --json."""

    def call(*words: str) -> dict:
        main([*words, "--json", "--home", str(tmp_path / "home")])
        return json.loads(capsys.readouterr().out)

    return call


def test_a_sweep_is_shown_then_queued_from_plans_in_files_and_cancelled_as_a_group(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CTRLAB_STORE_URL", raising=False)
    model = deepfm_workspace(tmp_path / "home", num_tables=3, mlp_dims=(40, 40), gradients=True)["model"]
    shown = run("sweep", model, "--methods", "afm", "svd", "--times", "2", "1000", "--seeds", "2", "--dry-run")
    assert shown["runs"] == [f"DeepFM, {method} 2.0x, seed {seed}" for method in ("AFM", "SVD of the weights") for seed in (1, 2)]
    assert len(shown["refused"]) == 2
    (tmp_path / "half.json").write_text('{"mlp.0": 4}')
    assert run("jobs")["jobs"] == []
    queued = run("sweep", model, "--plans", str(tmp_path / "half.json"), "--queue", "--no-finetune", "--name", "Halves")
    (group,) = run("groups")["groups"]
    assert (group["id"], group["name"], group["jobs"], group["active"]) == (queued["group"], "Halves", queued["jobs"], 1)
    assert run("groups", "cancel", group["id"])["groups"][0]["active"] == 0
    assert "needs the id of a group" in run("groups", "retry")["error"]
