"""The speed of a model is a job; a plan for milliseconds was run before it is filed, and the nearest is named where none ran so."""

import pytest

from ctrlab.errors import ConfigError, CtrlabError
from ctrlab.plans.budgets import Budget
from ctrlab.services import plans, speed
from ctrlab.services.models import model_profile


@pytest.fixture(scope="module")
def lab(small_lab):
    return small_lab.lab


@pytest.fixture(scope="module")
def model(small_lab):
    return small_lab.model


@pytest.fixture(scope="module")
def measured(lab, model):
    return lab.speed(model.id, batch_size=32, seconds_per_timing=0.02)


def test_it_is_filed_under_the_model_with_what_it_was_measured_on(lab, model, measured):
    assert lab.speed_of(model.id, 32).id == measured.id and measured.parents == (model.id, lab.spectra_of(model.id).id)
    assert speed.latest_speed(lab.workspace, model.id, 64) is None and speed.latest_speed(lab.workspace, model.id) == measured
    found = speed.load_model_speed(lab.workspace, measured.id)
    assert found.batch_size == measured.summary["batch_size"] == 32
    assert found.predict_ms(model_profile(lab.workspace, model.id), {}) > 0


def test_a_plan_for_milliseconds_ran_within_them(lab, model, measured):
    filed = lab.plan_for_ms(model.id, 1000.0, batch_size=32)
    (tried,) = filed.summary["tried"]
    assert 0 < tried["measured_ms"] <= 1000 and tried["predicted_ms"] <= 1000
    assert filed.parents == (model.id, measured.id) and filed.name == "At most 1000 ms at batch 32"
    again = lab.plan_for_ms(model.id, 1000.0, batch_size=32)
    assert [plan.id for plan in plans.list_plans(lab.workspace, model.id)] == [again.id]


def test_a_choice_by_accuracy_sends_milliseconds_to_where_plans_are_run(lab, model):
    with pytest.raises(ConfigError, match="use plan_for_ms"):
        lab.choose(model.id, budget=Budget(kind="latency_ms", limit=1.0, batch_size=32))


def test_milliseconds_that_no_plan_runs_within_are_refused_with_the_nearest(lab, model, measured):
    with pytest.raises(
        CtrlabError, match=r"ms at batch 32; the fastest (takes|of \d tried took) [\d.e-]+ ms: ask for that or more"
    ):
        lab.plan_for_ms(model.id, 1e-5, batch_size=32)
