"""The choice among candidate plans for a budget by measurement: the planner's plans and two baselines.

Predictions add up the losses of single layers and ignore interactions between layers. So each candidate is run over the same
validation rows: the planner's plan for the budget, its plans for smaller budgets (truncated tables overfit less), and two uniform
plans. The plan of least log loss is chosen.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ctrlab.evaluation.prediction import never
from ctrlab.measuring.probe import Measurement, Probe
from ctrlab.models.profile import ModelProfile
from ctrlab.plans.baselines import uniform_rank_plan, uniform_variance_plan
from ctrlab.plans.budgets import Budget, BudgetError
from ctrlab.plans.configs import UNCOMPRESSED, CompressionSpec, RankPlan
from ctrlab.plans.planner import NO_OPTIONS, plan_for_budget
from ctrlab.plans.rank_problem import PlanOptions
from ctrlab.plans.ranks import Spectra
from ctrlab.plans.sensitivity import Sensitivity

#: Smaller budgets whose plans are candidates too, as shares of the budget.
_SMALLER = (0.8, 0.65, 0.5)


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
    """{name: plan} of what may be best within a budget: "planned", "planned for 80%" ..., "uniform variance", "uniform rank".

    Args:
        spectra: of the model; they take the place of those of `options`.

    Raises:
        BudgetError: no plan meets the budget.
    """

    def planned(limit: float) -> RankPlan:
        smaller = Budget(kind=budget.kind, limit=limit)
        return plan_for_budget(profile, sensitivity, smaller, replace(options, spectra=spectra)).plan

    plans = {"planned": planned(budget.limit)}
    for share in _SMALLER:
        with suppress(BudgetError):
            plans[f"planned for {share:.0%}"] = planned(share * budget.limit)
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
    """Measure every plan on the probe's rows; the least log loss wins, the earlier of equals.

    Args:
        spec: everything but the ranks; its own plan is not read.

    Raises:
        JobCancelled: `should_stop()` was true.
    """
    measured = {name: probe.measure(spec.replace(plan=plan), should_stop=should_stop) for name, plan in plans.items()}
    best = min(measured, key=lambda name: measured[name].log_loss)
    return Choice(name=best, plans=dict(plans), measured=measured)
