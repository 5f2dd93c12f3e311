"""Latency-budget planning with measured verification and retry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ctrlab.errors import JobCancelled
from ctrlab.evaluation.prediction import never
from ctrlab.plans.budgets import Budget, BudgetError, milliseconds_up
from ctrlab.plans.rank_problem import PlannedRanks

ATTEMPTS = 3
#: Safety factor of the target of a retry.
_MARGIN = 0.98


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A plan with its predicted milliseconds (`planned.latency_ms`) and the measured ones."""

    planned: PlannedRanks
    measured_ms: float


def plan_that_runs(
    budget: Budget,
    planned_for: Callable[[Budget], PlannedRanks],
    measured_ms: Callable[[Mapping[str, int]], float],
    *,
    attempts: int = ATTEMPTS,
    should_stop: Callable[[], bool] = never,
) -> list[Attempt]:
    """All that was tried; the last one ran within the budget.

    Args:
        budget: of milliseconds.
        planned_for: the planner. measured_ms: builds a plan's served model and times it.

    Raises:
        BudgetError: no plan is predicted to meet the budget, or none of those tried did; the nearest is named.
        JobCancelled: `should_stop()` was true.
    """
    tried: list[Attempt] = []
    target = budget.limit
    while len(tried) < attempts:
        if should_stop():
            raise JobCancelled("cancelled while timing plans")
        try:
            planned = planned_for(replace(budget, limit=target))
        except BudgetError:
            if not tried:
                raise
            break
        tried.append(Attempt(planned=planned, measured_ms=measured_ms(planned.plan.as_dict())))
        if tried[-1].measured_ms <= budget.limit:
            return tried
        assert planned.latency_ms is not None
        target = _MARGIN * min(target, planned.latency_ms) * budget.limit / tried[-1].measured_ms
    fastest = min(attempt.measured_ms for attempt in tried)
    raise BudgetError(
        f"no plan ran within {budget.limit:.3g} ms at batch {budget.batch_size:,}; the fastest of {len(tried)} tried took "
        f"{milliseconds_up(fastest)} ms: ask for that or more"
    )
