"""Sweeps: every combination once, what cannot be run named, one group with its progress, cancelled and retried as one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrlab.errors import ConfigError, UnknownNameError
from ctrlab.plans.configs import RankPlan
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.services import deletion, sweeps
from ctrlab.services.models import model_profile
from ctrlab.services.sweeps import SweepConfig
from ctrlab.services.workspace import Workspace, open_workspace
from tests.support.workspaces import deepfm_workspace

PLANS = {"small": RankPlan.of({"mlp.0": 2}), "large": RankPlan.of({"mlp.0": 8, "embedding.C1": 2})}


@pytest.fixture
def ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.delenv("CTRLAB_STORE_URL", raising=False)
    return deepfm_workspace(tmp_path / "home", num_tables=3, mlp_dims=(40, 40), gradients=True)


@pytest.fixture
def workspace(tmp_path: Path, ids: dict[str, str]) -> Iterator[Workspace]:
    workspace = open_workspace(tmp_path / "home")
    yield workspace
    workspace.store.close()


def test_a_sweep_is_every_combination_of_methods_sizes_and_seeds_within_its_sizes(
    workspace: Workspace, ids: dict[str, str]
) -> None:
    config = SweepConfig(model_id=ids["model"], methods=("afm", "svd"), times=(1.5, 3.0), seeds=3)
    sweep = sweeps.plan_sweep(workspace, config)
    assert (len(sweep.runs), sweep.refused) == (12, ())
    assert len({run.name for run in sweep.runs}) == 12
    assert [run.compress.finetune.seed for run in sweep.runs[:3] if run.compress.finetune] == [0, 1, 2]
    profile = model_profile(workspace, ids["model"])
    before = serving_cost(profile, {}).size_bytes
    for run in sweep.runs:
        limit = before / (1.5 if "1.5x" in run.name else 3.0)
        assert serving_cost(profile, run.compress.plan.as_dict(), run.compress.spec).size_bytes <= limit


def test_what_cannot_be_run_is_named_and_the_rest_is_queued(workspace: Workspace, ids: dict[str, str]) -> None:
    sweep = sweeps.plan_sweep(workspace, SweepConfig(model_id=ids["model"], times=(2.0, 1e6), finetune=None, seeds=3))
    assert [run.name for run in sweep.runs] == ["DeepFM, AFM 2.0x"]
    assert "no plan has at most" in sweep.refused[0]
    with pytest.raises(ConfigError, match=r"none of these can be run: AFM .*no plan has at most"):
        sweeps.submit_sweep(workspace, sweeps.plan_sweep(workspace, SweepConfig(model_id=ids["model"], times=(1e6,))))
    with pytest.raises(ConfigError, match="methods must be among"):
        SweepConfig(model_id=ids["model"], methods=("guess",))
    assert workspace.store.jobs.list() == []


def test_plans_by_name_are_run_by_each_method(workspace: Workspace, ids: dict[str, str]) -> None:
    sweep = sweeps.plan_sweep(workspace, SweepConfig(model_id=ids["model"], methods=("afm", "svd")), PLANS)
    assert [run.compress.plan for run in sweep.runs] == [PLANS["small"], PLANS["large"]] * 2


def test_a_group_is_followed_cancelled_retried_and_goes_with_its_jobs(workspace: Workspace, ids: dict[str, str]) -> None:
    sweep = sweeps.plan_sweep(workspace, SweepConfig(model_id=ids["model"], name="Talk"), PLANS)
    group = sweeps.submit_sweep(workspace, sweep)
    first = workspace.store.jobs.claim("worker")
    assert first and first.title == "Compress DeepFM, AFM small"
    workspace.store.jobs.finish(first, "succeeded", result={"model": "model-1"})
    (found,) = sweeps.list_groups(workspace)
    assert (found.name, found.active, found.models, found.progress) == ("Talk", 1, ("model-1",), 0.5)
    assert found.sentence == "1 of 2 runs done, 1 queued"
    assert sweeps.cancel_group(workspace, group.id).sentence == "1 of 2 runs done, 1 cancelled"
    assert sweeps.retry_group(workspace, group.id).active == 1
    sweeps.cancel_group(workspace, group.id)
    entry = deletion.delete(workspace, group.job_ids)
    assert sweeps.list_groups(workspace) == []
    with pytest.raises(UnknownNameError, match="its jobs may have been deleted"):
        sweeps.get_group(workspace, group.id)
    deletion.restore(workspace, entry.id)
    assert sweeps.get_group(workspace, group.id).sentence == "1 of 2 runs done, 1 cancelled"
