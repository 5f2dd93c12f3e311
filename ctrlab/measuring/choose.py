"""The choice among candidate plans for a budget by measurement: the planner's plan and two baselines of the same size.

Predictions add up the losses of single layers and ignore interactions between layers. So the planner's plan for the budget and
two uniform plans are each run over the same validation rows. Another plan than the planned one is chosen only where its log loss
is lower by more than the noise of the measurement, and where it has the size that was asked for.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ctrlab.evaluation.delong import LEVEL, log_loss_difference
from ctrlab.evaluation.evidence import has_enough_clicks
from ctrlab.evaluation.metrics import rows_and_clicks
from ctrlab.evaluation.prediction import never
from ctrlab.measuring.probe import Measurement, Probe
from ctrlab.models.profile import ModelProfile
from ctrlab.plans.baselines import uniform_rank_plan, uniform_variance_plan
from ctrlab.plans.budgets import BUDGET_KINDS, Budget, BudgetError
from ctrlab.plans.configs import UNCOMPRESSED, CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.planner import NO_OPTIONS, plan_for_budget
from ctrlab.plans.rank_problem import PlanOptions
from ctrlab.plans.ranks import Spectra
from ctrlab.plans.sensitivity import Sensitivity

#: A baseline is a candidate only where it uses at least this share of what the planned one does: the size was asked for.
SAME_SIZE = 0.95
#: Name of the planner's own plan among the candidates.
PLANNED = "planned"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen plan's name and every candidate: {name: plan} and {name: measurement}, named as by `candidate_plans`."""

    name: str
    plans: dict[str, RankPlan]
    measured: dict[str, Measurement]

    @property
    def plan(self) -> RankPlan:
        """The chosen plan."""
        return self.plans[self.name]


def candidate_plans(
    profile: ModelProfile,
    sensitivity: Sensitivity,
    budget: Budget,
    spectra: Spectra,
    options: PlanOptions = NO_OPTIONS,
) -> dict[str, RankPlan]:
    """{name: plan} of what may be best within a budget: "planned", and "uniform variance" and "uniform rank" where those have
    the size of the planned one, within 5 %.

    Args:
        spectra: of the model; they take the place of those of `options`.

    Raises:
        BudgetError: no plan meets the budget.
    """
    planned = plan_for_budget(profile, sensitivity, budget, replace(options, spectra=spectra)).plan

    def amount(plan: RankPlan) -> float:
        return BUDGET_KINDS[budget.kind].amount(serving_cost(profile, plan.as_dict(), options.spec))

    baselines = baseline_plans(profile, budget, spectra, options)
    least = SAME_SIZE * amount(planned)
    return {PLANNED: planned} | {name: plan for name, plan in baselines.items() if amount(plan) >= least}


def baseline_plans(
    profile: ModelProfile, budget: Budget, spectra: Spectra, options: PlanOptions = NO_OPTIONS
) -> dict[str, RankPlan]:
    """{name: plan} of the uniform plans that meet the budget: "uniform variance" and "uniform rank"."""
    plans: dict[str, RankPlan] = {}
    with suppress(BudgetError):
        plans["uniform variance"] = uniform_variance_plan(profile, spectra, budget, options.spec)
    with suppress(BudgetError):
        plans["uniform rank"] = uniform_rank_plan(profile, budget, options.spec)
    return plans


def choose_plan(
    probe: Probe,
    plans: Mapping[str, RankPlan],
    spec: CompressionSpec = UNCOMPRESSED,
    *,
    should_stop: Callable[[], bool] = never,
) -> Choice:
    """Measure every plan on the probe's rows; the first one wins unless another has a measurably lower log loss.

    Measurably: the paired difference on the same rows is below 0 by more than its 95 % interval, widened for the number of plans
    that are tried (Bonferroni), and the rows have `ENOUGH_CLICKS`.

    Args:
        spec: everything but the ranks; its own plan is not read.

    Raises:
        JobCancelled: `should_stop()` was true.
    """
    measured = {name: probe.measure(spec.replace(plan=plan), should_stop=should_stop) for name, plan in plans.items()}
    first, *others = measured
    better = [name for name in others if _is_measurably_better(probe, measured[name], measured[first], len(others))]
    best = min(better, key=lambda name: measured[name].log_loss, default=first)
    return Choice(name=best, plans=dict(plans), measured=measured)


def _is_measurably_better(probe: Probe, one: Measurement, other: Measurement, comparisons: int) -> bool:
    """Whether `one` has a lower log loss than `other` beyond the noise of the probe's rows."""
    if not has_enough_clicks(*rows_and_clicks(probe.labels)):
        return False
    level = 1 - (1 - LEVEL) / max(1, comparisons)
    return log_loss_difference(probe.labels, one.logits, other.logits, level).high < 0
