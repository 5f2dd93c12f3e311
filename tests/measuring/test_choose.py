import numpy as np
import pytest

from ctrlab.evaluation.metrics import auc, log_loss
from ctrlab.measuring.choose import PLANNED, SAME_SIZE, candidate_plans, choose_plan
from ctrlab.measuring.probe import Measurement, Probe
from ctrlab.measuring.sensitivity_probe import measure_sensitivity
from ctrlab.plans.budgets import Budget, BudgetError
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import serving_cost
from tests.support.small_models import MemoryDataset, make_model, spectra_of

DATA = MemoryDataset()


@pytest.fixture(scope="module", params=["deepfm", "dcn"])
def bench(request):
    model = make_model(request.param)
    probe = Probe(model, spectra_of(model), DATA.split("valid"))
    return probe, measure_sensitivity(probe)


def amount(probe, plan):
    return serving_cost(probe.profile, plan.as_dict()).parameters


@pytest.mark.parametrize("share", [0.25, 0.4, 0.7])
def test_candidates_meet_the_budget_and_none_is_of_another_size_than_planned(bench, share):
    probe, sensitivity = bench
    budget = Budget(kind="parameters", limit=share * serving_cost(probe.profile, {}).parameters)
    plans = candidate_plans(probe.profile, sensitivity, budget, probe.spectra)
    assert next(iter(plans)) == PLANNED
    for plan in plans.values():
        assert SAME_SIZE * amount(probe, plans[PLANNED]) <= amount(probe, plan) <= budget.limit
    choice = choose_plan(probe, plans)
    assert choice.plan == plans[choice.name] and set(choice.measured) == set(plans)
    assert choice.measured[choice.name].log_loss == probe.measure(CompressionSpec(plan=choice.plan)).log_loss


class NoisyProbe:
    """Measures plans whose true log losses differ by `gain` nats, on rows of their own noise."""

    def __init__(self, seed, clicks, rows=2000, gain=0.0):
        self.random, self.gain = np.random.default_rng(seed), gain
        self.truth = self.random.normal(size=rows) - 2.5
        self.labels = np.zeros(rows, np.float32)
        chances = 1 / (1 + np.exp(-self.truth))
        self.labels[self.random.choice(rows, clicks, replace=False, p=chances / chances.sum())] = 1

    @property
    def num_rows(self):
        return len(self.labels)

    def measure(self, spec, *, should_stop):
        noise = 0.3 * self.random.normal(size=self.num_rows)
        shift = self.gain * (self.labels - 0.5) if spec.plan.as_dict() == {"b": 1} else 0
        logits = (self.truth + noise + shift).astype(np.float32)
        return Measurement(auc=auc(self.labels, logits), log_loss=log_loss(self.labels, logits), logits=logits)


PLANS = {PLANNED: RankPlan.of({"a": 1}), "uniform variance": RankPlan.of({"b": 1}), "uniform rank": RankPlan.of({"c": 1})}


@pytest.mark.parametrize("clicks", [4, 24, 100, 600])
def test_plans_that_differ_by_noise_alone_are_answered_by_the_planned_one(clicks):
    chosen = [choose_plan(NoisyProbe(seed, clicks), PLANS).name for seed in range(200)]
    share = np.mean([name != PLANNED for name in chosen])
    assert share == 0 if clicks < 30 else share <= 0.06


def test_a_plan_that_is_better_beyond_the_noise_is_chosen():
    assert {choose_plan(NoisyProbe(seed, 600, gain=0.5), PLANS).name for seed in range(20)} == {"uniform variance"}


def test_with_too_few_clicks_even_a_large_difference_does_not_change_the_plan():
    assert {choose_plan(NoisyProbe(seed, 24, gain=5.0), PLANS).name for seed in range(20)} == {PLANNED}


def test_a_budget_that_cannot_be_met_is_refused(bench):
    probe, sensitivity = bench
    with pytest.raises(BudgetError, match="ask for that or more"):
        candidate_plans(probe.profile, sensitivity, Budget(kind="parameters", limit=10), probe.spectra)
