"""The shrink job: one goal, resumed after its last finished part, ends in a measured model and a sentence; and the analysis."""

import pytest

from ctrlab.errors import ConfigError
from ctrlab.plans.analysis import Analysis
from ctrlab.services import jobs, shrink
from ctrlab.services.runner import run_job


@pytest.fixture(scope="module")
def lab(small_lab):
    return small_lab.lab


def size(model, key="cost_serving"):
    cost = model.summary[key]
    return cost["bytes_tables"] + cost["bytes_dense"]


def test_a_shrunk_model_has_the_size_asked_for_and_a_stopped_job_goes_on_after_its_last_part(lab, small_lab):
    config = shrink.ShrinkConfig(model_id=small_lab.model.id, times=3.0)
    job_id = shrink.submit_shrink(lab.workspace, config)

    def compressing():
        return "compression" in jobs.get_job(lab.workspace, job_id).message

    assert run_job(lab.workspace, job_id, should_stop=compressing).state == "cancelled"
    done = {artifact.id for artifact in lab.workspace.store.artifacts.list()}
    jobs.retry_job(lab.workspace, job_id)
    ended = run_job(lab.workspace, job_id)
    assert ended.state == "succeeded" and ended.progress == 1.0
    model = lab.workspace.store.artifacts.get(ended.result["model"])
    assert size(model) <= size(small_lab.model) / 3
    assert model.config["compression"]["recovery"] == "best" and ended.result["spectra"] in done
    roles = [lab.workspace.store.artifacts.get(one).summary["role"] for one in ended.result["controls"]]
    assert roles == ["control", "compressed", "from_scratch"]
    report = lab.workspace.store.artifacts.get(ended.result["report"])
    assert model.name in (report.path / shrink.REPORT_FILE).read_text() and report.parents == (model.id,)
    assert lab.workspace.store.artifacts.get(ended.result["bundle"]).parents == (model.id,)
    assert "smaller" in ended.result["verdict"] and "fine-tuning alone gave" in ended.result["verdict"]


def test_an_analysis_names_the_smallest_model_at_every_loss_of_auc_and_what_blocks_more(lab, small_lab):
    found = lab.analyse(small_lab.model.id)
    assert [option.max_auc_loss for option in found.options] == [0.0, 0.0005, 0.002]
    sizes = [option.bytes for option in found.options]
    assert sizes == sorted(sizes, reverse=True) and found.options[-1].times == found.bytes / sizes[-1]
    assert all(blocker.bytes > 0 for blocker in found.blockers)
    assert Analysis.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("goals", [{}, {"times": 2.0, "auc_loss": 0.001}])
def test_any_other_number_of_goals_than_one_is_refused(goals):
    with pytest.raises(ConfigError, match="exactly one goal"):
        shrink.ShrinkConfig(model_id="model-1", **goals)
