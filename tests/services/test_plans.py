import pytest

from ctrlab.errors import CtrlabError, UnknownNameError
from ctrlab.plans.configs import RankPlan
from ctrlab.services import plans
from ctrlab.services.workspace import open_workspace
from tests.support.workspaces import deepfm_workspace

PLAN = RankPlan.of({"mlp.0": 8, "embedding.C1": 3})


@pytest.fixture
def home(tmp_path):
    ids = deepfm_workspace(tmp_path, num_tables=3, mlp_dims=(40, 40))
    workspace = open_workspace(tmp_path)
    yield workspace, ids["model"]
    workspace.store.close()


def test_a_plan_is_kept_with_its_model_and_comes_back_the_same(home):
    workspace, model = home
    saved = plans.save_plan(workspace, model, "small", PLAN)
    assert plans.load_plan(workspace, saved.id) == PLAN and [plan.id for plan in plans.list_plans(workspace, model)] == [saved.id]
    plans.delete_plan(workspace, saved.id)
    assert plans.list_plans(workspace, model) == []
    with pytest.raises(UnknownNameError):
        plans.load_plan(workspace, saved.id)


def test_saving_under_the_same_name_replaces(home):
    workspace, model = home
    plans.save_plan(workspace, model, "small", PLAN)
    other = plans.save_plan(workspace, model, " small ", RankPlan.of({"mlp.0": 4}))
    assert [plan.id for plan in plans.list_plans(workspace, model)] == [other.id]


@pytest.mark.parametrize("text", [PLAN.to_json(), '{"mlp.0": 8, "embedding.C1": 3}'])
def test_both_forms_of_json_are_read(home, text):
    assert plans.plan_from_json(*home, text) == PLAN


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "a plan is an object"),
        ('{"mlp.0": 2.5}', "rank of mlp"),
        ('{"mlp.0": true}', "whole number"),
        ('{"mlp.9": 3}', "no layer is called"),
        ('{"mlp.0": 0}', "at least|between|must"),
        ('{"ranks": 5}', "ranks"),
        ("{}", "every layer dense"),
    ],
)
def test_what_is_no_plan_for_this_model_is_refused_with_a_sentence(home, text, says):
    with pytest.raises(CtrlabError, match=says):
        plans.plan_from_json(*home, text)
