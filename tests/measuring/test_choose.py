import pytest

from ctrlab.measuring.choose import candidate_plans, choose_plan
from ctrlab.measuring.probe import Probe
from ctrlab.measuring.sensitivity_probe import measure_sensitivity
from ctrlab.plans.budgets import Budget, BudgetError
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import serving_cost
from tests.support.small_models import MemoryDataset, make_model, spectra_of

DATA = MemoryDataset()


@pytest.fixture(scope="module", params=["deepfm", "dcn"])
def bench(request):
    model = make_model(request.param)
    probe = Probe(model, spectra_of(model), DATA.split("valid"))
    return probe, measure_sensitivity(probe)


@pytest.mark.parametrize("share", [0.25, 0.4, 0.7])
def test_the_choice_meets_the_budget_and_no_candidate_measures_better(bench, share):
    probe, sensitivity = bench
    budget = Budget(kind="parameters", limit=share * serving_cost(probe.profile, {}).parameters)
    plans = candidate_plans(probe.profile, sensitivity, budget, probe.spectra)
    assert {"planned", "uniform variance", "uniform rank"} <= set(plans)
    assert all(serving_cost(probe.profile, plan.as_dict()).parameters <= budget.limit for plan in plans.values())
    choice = choose_plan(probe, plans)
    assert choice.plan == plans[choice.name]
    best = choice.measured[choice.name].log_loss
    assert best == probe.measure(CompressionSpec(plan=choice.plan)).log_loss
    assert all(best <= probe.measure(CompressionSpec(plan=plan)).log_loss for plan in plans.values())


def test_a_budget_that_cannot_be_met_is_refused(bench):
    probe, sensitivity = bench
    with pytest.raises(BudgetError, match="ask for that or more"):
        candidate_plans(probe.profile, sensitivity, Budget(kind="parameters", limit=10), probe.spectra)
