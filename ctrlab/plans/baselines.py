"""Baselines for the planner: every layer keeps the same share of its variance, or of its width; loads without torch."""

from collections.abc import Callable
from math import ceil

import numpy as np
from numpy.typing import NDArray

from ctrlab.models.profile import ModelProfile
from ctrlab.plans.budgets import BUDGET_KINDS, Budget, BudgetError
from ctrlab.plans.configs import UNCOMPRESSED, CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.ranks import Spectra, plan_ranks

FloatArray = NDArray[np.float64]


def uniform_variance_plan(
    profile: ModelProfile, spectra: Spectra, budget: Budget, spec: CompressionSpec = UNCOMPRESSED
) -> RankPlan:
    """Every layer keeps the same share of its variance, the largest that meets the budget; BudgetError where none does."""
    # Ranks change at the cumulative shares themselves, and nowhere between.
    known = np.concatenate([spectra[layer.layer_name].cumulative for layer in profile.compressible])
    return _largest(profile, budget, spec, np.unique(known), lambda share: plan_ranks(profile, spectra, variance=share))


def uniform_rank_plan(profile: ModelProfile, budget: Budget, spec: CompressionSpec = UNCOMPRESSED) -> RankPlan:
    """Every layer keeps the same share of its width, the largest that meets the budget; BudgetError where none does."""
    widths = {layer.layer_name: layer.out_features for layer in profile.compressible}
    shares = np.unique([step / width for width in widths.values() for step in range(1, width + 1)])

    def plan(share: float) -> RankPlan:
        return plan_ranks(profile, ranks={name: max(1, ceil(share * width - 1e-9)) for name, width in widths.items()})

    return _largest(profile, budget, spec, shares, plan)


def _largest(
    profile: ModelProfile, budget: Budget, spec: CompressionSpec, shares: FloatArray, plan: Callable[[float], RankPlan]
) -> RankPlan:
    """The plan of the largest of the ascending `shares` that meets the budget, by bisection: a larger share costs more."""
    kind = BUDGET_KINDS[budget.kind]

    def cost(made: RankPlan) -> float:
        return kind.amount(serving_cost(profile, made.as_dict(), spec))

    low, high = 0, len(shares) - 1
    best = plan(float(shares[0]))
    if (smallest := cost(best)) > budget.limit:
        raise BudgetError(
            f"no common share has at most {budget.limit:,.0f} {kind.unit}; the smallest has {smallest:,.0f}: ask for that or more"
        )
    while low < high:
        middle = (low + high + 1) // 2
        tried = plan(float(shares[middle]))
        if cost(tried) <= budget.limit:
            low, best = middle, tried
        else:
            high = middle - 1
    return best
