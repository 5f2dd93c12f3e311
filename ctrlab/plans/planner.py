"""The planner: ranks, and bits, of all layers for a budget or a loss of AUC, by their sensitivity. Loads without torch.

The predicted loss of a plan is the sum over its layers, dense being one of each layer's choices. The cost of the folded form
is not such a sum, because its first linear layers read latents. It is one for each choice of their ranks: one knapsack a
choice, most of which are excluded by bounds (`plans.form_search`). The plan is therefore optimal among the ranks considered
for models with one first layer, and for models with several as long as their undominated choices are few (MAX_CHOICES; the
projections of self-attention have a few hundred). Compared with every choice of ranks of small DeepFM, DCN, Wide & Deep, NFM
and AutoInt it missed none.

Two cases are not guaranteed optimal. A plan may be served in the other form, with fewer MACs but more of what the budget
counts; it is planned again for a little less. And a knapsack may need more than MAX_STATES states.
"""

import numpy as np

from ctrlab.models.profile import ModelProfile
from ctrlab.plans.budgets import BUDGET_KINDS, LATENCY, Budget, BudgetError, too_small
from ctrlab.plans.rank_problem import ROUNDS, PlannedRanks, PlanOptions, RankProblem
from ctrlab.plans.sensitivity import Sensitivity
from ctrlab.plans.speed import SpeedModel

_MAX_FRONT = 60
NO_OPTIONS = PlanOptions()


def plan_for_budget(
    profile: ModelProfile,
    sensitivity: Sensitivity,
    budget: Budget,
    options: PlanOptions = NO_OPTIONS,
) -> PlannedRanks:
    """The ranks of least predicted log loss, or of AUC where the options aim at it, within a budget.

    Raises:
        BudgetError: no plan meets the budget, or it is one of milliseconds and no such speed was measured.
    """
    problem = RankProblem(profile, sensitivity, budget.kind, options, _speed_for(budget, options.speed))
    target = budget.limit
    for _ in range(ROUNDS):
        picked = problem.within(target)
        if picked is None:
            break
        planned = problem.planned(picked)
        excess = problem.whole_amount(planned) - budget.limit
        if excess <= 0:  # as with latents it always is
            return planned
        target -= excess
    raise too_small(budget, problem.whole_amount(problem.planned(problem.smallest())))


def plan_for_loss(
    profile: ModelProfile,
    sensitivity: Sensitivity,
    max_auc_loss: float,
    kind: str = "parameters",
    options: PlanOptions = NO_OPTIONS,
) -> PlannedRanks:
    """The smallest plan, by `kind`, that is predicted to lose at most `max_auc_loss` of AUC.

    Raises:
        BudgetError: the loss allowed is negative.
    """
    if not max_auc_loss >= 0:
        raise BudgetError(f"an AUC loss of at most {max_auc_loss:g} cannot be planned for; allow 0 or more, such as 0.0005")
    problem = RankProblem(profile, sensitivity, kind, options)
    return problem.planned(problem.cheapest(max_auc_loss))


def planned_front(
    profile: ModelProfile,
    sensitivity: Sensitivity,
    kind: str = "parameters",
    options: PlanOptions = NO_OPTIONS,
) -> list[PlannedRanks]:
    """Plans of which none is both cheaper and predicted better than another, cheapest first; the last leaves all dense."""
    problem = RankProblem(profile, sensitivity, kind, options)
    # By what the planner minimises, not by log loss alone: of plans of equal log loss those that keep more variance belong here.
    plans = [(problem.planned(picked), problem.loss(picked)) for picked in problem.front()]
    plans.sort(key=lambda pair: (BUDGET_KINDS[kind].amount(pair[0].cost), pair[1]))
    kept: list[PlannedRanks] = []
    least = np.inf
    for plan, loss in plans:
        if loss < least:
            kept.append(plan)
            least = loss
    places = np.unique(np.linspace(0, len(kept) - 1, min(len(kept), _MAX_FRONT)).round().astype(int))
    return [kept[place] for place in places]


def _speed_for(budget: Budget, speed: SpeedModel | None) -> SpeedModel | None:
    if budget.kind != LATENCY:
        return None
    if speed is None:
        raise BudgetError(f"the speed of this model at batch {budget.batch_size:,} is not known; measure it first")
    if speed.batch_size != budget.batch_size:
        raise BudgetError(
            f"the speed of this model was measured at batch {speed.batch_size:,}, not at {budget.batch_size:,}; measure it there"
        )
    return speed
