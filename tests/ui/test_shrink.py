"""One button that makes a model smaller, on Compress and Home: the goal goes to the job, its verdict to the page."""

import pytest

from ctrlab.plans.analysis import Analysis, Blocker, Option
from ctrlab.services.shrink import ShrinkConfig
from ctrlab.services.workspace import open_workspace
from tests.support.compress_page import open_compress


@pytest.fixture
def store(ids, tmp_path):
    return open_workspace(tmp_path).store


def opened(ids, **query):
    page = open_compress(model=ids["model"], **query)
    page.session_state["shrink-compress"] = True
    return page.run()


@pytest.mark.parametrize(
    ("goal", "number", "label"),
    [
        ("times", 8.0, "Make it 8x smaller"),
        ("auc_loss", 0.001, "Make it as small as 0.001 of AUC allows"),
        ("megabytes", 0.5, "Make it 0.5 MB"),
    ],
)
def test_the_goal_on_the_page_is_that_of_the_job(ids, store, goal, number, label):
    page = opened(ids)
    page.segmented_control(key="goal-compress").set_value(goal).run()
    page.number_input(key=f"goal-{goal}-compress").set_value(number).run()
    page.checkbox(key="shrink-controls-compress").uncheck().run()
    button = page.button(key="run-shrink-compress")
    assert button.label == label
    button.click().run()
    assert not page.exception
    (job,) = [job for job in store.jobs.list(5) if job.kind == "shrink"]
    assert ShrinkConfig.from_dict(job.config) == ShrinkConfig.from_dict(
        {"model_id": ids["model"], "controls": False, goal: number}
    )


def test_an_analysis_is_started_and_then_shown(ids, store):
    page = opened(ids)
    page.button(key="analyse-compress").click().run()
    (job,) = [job for job in store.jobs.list(5) if job.kind == "analysis"]
    option = Option(max_auc_loss=0.0005, bytes=1000, times=12.3, auc_change=0.0, log_loss_change=0.0, spec={})
    blocker = Blocker(layer_name="mlp.2", rank=4, bytes=100, log_loss=0.1)
    found = Analysis(bytes=12300, num_rows=500, options=(option,), blockers=(blocker,))
    claimed = store.jobs.claim("worker", job.id)
    store.jobs.finish(claimed, "succeeded", result={"analysis": found.to_dict()})
    page = opened(ids)
    assert any("**12x smaller** with at most 0.0005 of AUC lost" in text.value for text in page.markdown)
    assert any("`mlp.2`" in caption.value for caption in page.caption)


def test_the_end_of_the_job_is_its_verdict_with_the_way_to_the_comparison(ids, store):
    page = opened(ids)
    page.button(key="run-shrink-compress").click().run()
    (job,) = [job for job in store.jobs.list(5) if job.kind == "shrink"]
    result = {"model": "model-small", "controls": ["model-control"], "verdict": "5.0x smaller at no measurable loss"}
    store.jobs.finish(store.jobs.claim("worker", job.id), "succeeded", result=result)
    page.run()
    assert "5.0x smaller at no measurable loss" in page.success[0].value


def test_a_model_that_ctrlab_cannot_fine_tune_is_not_offered_it(ids, store, monkeypatch):
    from ctrlab.services.capabilities import Capabilities

    monkeypatch.setattr("ctrlab.ui.components.shrink.abilities", lambda *_: Capabilities({"finetune": "no"}))
    with pytest.raises(KeyError):
        opened(ids).segmented_control(key="goal-compress")
