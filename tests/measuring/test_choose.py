import numpy as np
import pytest

from ctrlab.evaluation.metrics import auc, log_loss
from ctrlab.measuring.choose import PLANNED, SAME_SIZE, MeasuredFront, candidate_specs, choose_spec
from ctrlab.measuring.probe import Measurement, Probe, halves
from ctrlab.measuring.sensitivity_probe import measure_sensitivity
from ctrlab.plans.budgets import Budget, BudgetError
from ctrlab.plans.configs import CompressionSpec, PlanSettings
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.estimates import estimated_sensitivity
from tests.support.small_models import MemoryDataset, make_model, spectra_of

DATA = MemoryDataset()


@pytest.fixture(scope="module")
def bench():
    model = make_model("deepfm")
    probe = Probe(model, spectra_of(model), DATA.split("valid"))
    return probe, measure_sensitivity(probe)


def amount(probe, spec, kind="parameters"):
    cost = serving_cost(probe.profile, spec.plan.as_dict(), spec)
    return cost.parameters if kind == "parameters" else cost.size_bytes


@pytest.mark.parametrize("share", [0.25, 0.4, 0.7])
def test_candidates_meet_the_budget_and_none_is_of_another_size_than_planned(bench, share):
    probe, sensitivity = bench
    budget = Budget(kind="parameters", limit=share * serving_cost(probe.profile, {}).parameters)
    specs = candidate_specs(probe.profile, sensitivity, budget, probe.spectra, PlanSettings())
    assert next(iter(specs)) == PLANNED
    for spec in specs.values():
        assert SAME_SIZE * amount(probe, specs[PLANNED]) <= amount(probe, spec) <= budget.limit
    choice = choose_spec(probe, specs)
    assert choice.spec == specs[choice.name] and set(choice.measured) == set(specs)
    reported = halves(probe.labels, probe.measure(choice.spec))[1]
    assert choice.measured[choice.name].log_loss == reported.log_loss


def test_with_bits_planned_every_precision_that_meets_the_budget_has_its_own_ranks(bench):
    probe, sensitivity = bench
    budget = Budget(kind="bytes", limit=serving_cost(probe.profile, {}).size_bytes / 3)
    specs = candidate_specs(probe.profile, sensitivity, budget, probe.spectra, PlanSettings(bits="planned"))
    planned = {spec.precision: spec for name, spec in specs.items() if name.startswith(PLANNED)}
    assert set(planned) == {"float32", "int8", "int4"}
    assert all(amount(probe, spec, "bytes") <= budget.limit for spec in planned.values())
    wide, narrow = (sum(planned[bits].plan.as_dict().get("mlp.0", 32) for bits in each) for each in (["int8"], ["float32"]))
    assert wide >= narrow


def test_without_a_measurement_plans_are_made_with_the_gradients_in_the_spectra(bench):
    probe, _ = bench
    spectra = spectra_of(probe.model, loss_gradients=True)
    estimate = estimated_sensitivity(probe.profile, spectra, CompressionSpec(method="weighted_afm"))
    assert estimate.estimated and set(estimate.layers) == {layer.layer_name for layer in probe.profile.compressible}
    budget = Budget(kind="bytes", limit=serving_cost(probe.profile, {}).size_bytes / 2)
    specs = candidate_specs(probe.profile, estimate, budget, spectra, PlanSettings(method="weighted_afm"))
    assert specs[PLANNED].method == "weighted_afm" and 0.8 * budget.limit < amount(probe, specs[PLANNED], "bytes") <= budget.limit
    assert estimated_sensitivity(probe.profile, probe.spectra, CompressionSpec()) is None or probe.spectra is spectra


def test_the_smallest_plan_for_a_loss_of_auc_was_measured_to_lose_no_more(bench):
    probe, sensitivity = bench
    front = MeasuredFront(probe, sensitivity, probe.spectra, PlanSettings())
    sizes = []
    for allowed in (0.0, 0.01, 0.1):
        choice = front.smallest(allowed)
        choosing, reporting = halves(probe.labels, probe.measure(choice.spec))
        assert front.original[0].auc - choosing.auc <= allowed
        assert choice.measured[choice.name].auc == reporting.auc
        sizes.append(front.amount(choice.spec))
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]
    with pytest.raises(BudgetError, match="allow 0 or more"):
        front.smallest(-0.1)


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

    @property
    def original(self):
        return Measurement.of(self.labels, self.truth.astype(np.float32))


SPECS = {
    name: CompressionSpec.of({layer: 1})
    for name, layer in {PLANNED: "a", "uniform variance": "b", "uniform rank": "c"}.items()
}  # fmt: skip


@pytest.mark.parametrize("clicks", [24, 600])
@pytest.mark.parametrize("aim", ["log_loss", "auc"])
def test_plans_that_differ_by_noise_alone_are_answered_by_the_planned_one(clicks, aim):
    chosen = [choose_spec(NoisyProbe(seed, clicks), SPECS, aim).name for seed in range(60)]
    share = np.mean([name != PLANNED for name in chosen])
    assert share == 0 if clicks < 30 else share <= 0.08


@pytest.mark.parametrize("aim", ["log_loss", "auc"])
def test_a_plan_that_is_better_beyond_the_noise_is_chosen(aim):
    assert {choose_spec(NoisyProbe(seed, 600, gain=1.0), SPECS, aim).name for seed in range(20)} == {"uniform variance"}


def test_with_too_few_clicks_even_a_large_difference_does_not_change_the_plan():
    assert {choose_spec(NoisyProbe(seed, 24, gain=5.0), SPECS).name for seed in range(20)} == {PLANNED}


def test_a_budget_that_cannot_be_met_is_refused(bench):
    probe, sensitivity = bench
    with pytest.raises(BudgetError, match="ask for that or more"):
        candidate_specs(probe.profile, sensitivity, Budget(kind="parameters", limit=10), probe.spectra, PlanSettings())
