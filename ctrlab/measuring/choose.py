"""The choice among candidates by measurement, where predictions add up the losses of single layers and ignore their interaction.

For a budget the candidates are the planner's plan and two uniform plans of the same size, at every precision that is allowed. For
a loss of AUC they are the plans of the planner's front. Half of the probe's rows choose, the other half report.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ctrlab.evaluation.delong import LEVEL, auc_difference, log_loss_difference
from ctrlab.evaluation.evidence import has_enough_clicks
from ctrlab.evaluation.metrics import rows_and_clicks
from ctrlab.evaluation.prediction import never
from ctrlab.measuring.probe import Measurement, PlanProbe, halves
from ctrlab.models.profile import ModelProfile
from ctrlab.plans.baselines import uniform_rank_plan, uniform_variance_plan
from ctrlab.plans.budgets import BUDGET_KINDS, Budget, BudgetError
from ctrlab.plans.configs import UNCOMPRESSED, Aim, CompressionSpec, PlanSettings, RankPlan
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.estimates import has_gradients
from ctrlab.plans.methods import METHODS
from ctrlab.plans.planner import plan_for_budget, planned_front
from ctrlab.plans.rank_problem import PlannedRanks, PlanOptions, with_bits
from ctrlab.plans.ranks import Spectra
from ctrlab.plans.sensitivity import Sensitivity

#: A baseline is a candidate only where it uses at least this share of what the planned one does: the size was asked for.
SAME_SIZE = 0.95
#: Name of the planner's own plan among the candidates.
PLANNED = "planned"
_MIXED = ", mixed"

Specs = Mapping[str, CompressionSpec]
Labels = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen candidate's name, and every candidate: {name: spec} and {name: measurement}.

    measured, original: on the rows that did not choose.
    """

    name: str
    specs: dict[str, CompressionSpec]
    measured: dict[str, Measurement]
    original: Measurement

    @property
    def spec(self) -> CompressionSpec:
        """The chosen spec."""
        return self.specs[self.name]

    @property
    def plan(self) -> RankPlan:
        """The ranks of the chosen spec."""
        return self.spec.plan


def candidate_specs(
    profile: ModelProfile, sensitivity: Sensitivity, budget: Budget, spectra: Spectra, settings: PlanSettings
) -> dict[str, CompressionSpec]:
    """{name: spec} of what may be best within a budget: the planner's, and uniform ones where those have its size, within 5 %.

    Names are "planned", "uniform variance" and "uniform rank", with the precision where several are allowed; "planned, mixed" has
    bits by layer, where the spectra have the gradients that these are planned with.

    Raises:
        BudgetError: no plan meets the budget at any precision; the sentence is that of the smallest.
    """
    found: dict[str, CompressionSpec] = {}
    refused: BudgetError | None = None
    for name, options in _ways(profile, spectra, settings).items():
        try:
            found |= _candidates(profile, sensitivity, budget, name, options)
        except BudgetError as error:
            refused = error
    if refused is not None and not found:
        raise refused
    return found


def _ways(profile: ModelProfile, spectra: Spectra, settings: PlanSettings) -> dict[str, PlanOptions]:
    """{suffix of a candidate's name: options of the planner} for every precision that is allowed, and for bits by layer."""
    several = len(settings.precisions) > 1
    ways = {
        f", {precision}" if several else "": PlanOptions(
            spec=CompressionSpec(method=settings.method, precision=precision),
            spectra=spectra,
            aim=settings.aim,
            multiple_of=settings.multiple_of,
        )
        for precision in settings.precisions
    }
    if several and has_gradients(profile, spectra) and METHODS[settings.method].keeps_latents:
        ways[_MIXED] = replace(ways[", int8"], precisions=settings.precisions)
    return ways


def _candidates(
    profile: ModelProfile, sensitivity: Sensitivity, budget: Budget, suffix: str, options: PlanOptions
) -> dict[str, CompressionSpec]:
    planned = _spec_of(plan_for_budget(profile, sensitivity, budget, options), options)
    specs = {PLANNED + suffix: planned}
    if options.precisions or options.spectra is None:
        return specs
    least = SAME_SIZE * _amount(profile, planned, budget.kind)
    for name, plan in baseline_plans(profile, budget, options.spectra, options.spec).items():
        spec = options.spec.replace(plan=plan)
        if _amount(profile, spec, budget.kind) >= least:
            specs[name + suffix] = spec
    return specs


def _spec_of(found: PlannedRanks, options: PlanOptions) -> CompressionSpec:
    return with_bits(options.spec.replace(plan=found.plan), found.precisions)


def _amount(profile: ModelProfile, spec: CompressionSpec, kind: str) -> float:
    return BUDGET_KINDS[kind].amount(serving_cost(profile, spec.plan.as_dict(), spec))


def baseline_plans(
    profile: ModelProfile, budget: Budget, spectra: Spectra, spec: CompressionSpec = UNCOMPRESSED
) -> dict[str, RankPlan]:
    """{name: plan} of the uniform plans that meet the budget: "uniform variance" and "uniform rank"."""
    plans: dict[str, RankPlan] = {}
    with suppress(BudgetError):
        plans["uniform variance"] = uniform_variance_plan(profile, spectra, budget, spec)
    with suppress(BudgetError):
        plans["uniform rank"] = uniform_rank_plan(profile, budget, spec)
    return plans


def choose_spec(probe: PlanProbe, specs: Specs, aim: Aim = "log_loss", *, should_stop: Callable[[], bool] = never) -> Choice:
    """Measure every candidate on the probe's rows; the planned one that does best wins unless another is measurably better.

    Measurably: the paired difference on the choosing rows is beyond its 95 % interval, widened for the number of candidates
    (Bonferroni), and these rows have `ENOUGH_CLICKS`. Candidates called "planned", of several precisions, are compared as they
    measure: each was made by the planner, and none is the one to doubt.

    Args:
        aim: what is compared.

    Raises:
        JobCancelled: `should_stop()` was true.
    """
    measured = {name: probe.measure(spec, should_stop=should_stop) for name, spec in specs.items()}
    parts = {name: halves(probe.labels, one) for name, one in measured.items()}
    choosing = {name: one for name, (one, _) in parts.items()}
    labels = probe.labels[::2]
    planned = [name for name in choosing if name.startswith(PLANNED)] or list(choosing)[:1]
    first = min(planned, key=lambda name: _cost(choosing[name], aim))
    others = [name for name in choosing if name not in planned]
    better = [name for name in others if _is_measurably_better(labels, choosing[name], choosing[first], aim, len(others))]
    best = min(better, key=lambda name: _cost(choosing[name], aim), default=first)
    return Choice(
        name=best, specs=dict(specs), measured={name: one for name, (_, one) in parts.items()},
        original=halves(probe.labels, probe.original)[1],
    )  # fmt: skip


def _cost(measured: Measurement, aim: Aim) -> float:
    return measured.log_loss if aim == "log_loss" or measured.auc != measured.auc else -measured.auc


def _is_measurably_better(labels: Labels, one: Measurement, other: Measurement, aim: Aim, comparisons: int) -> bool:
    """Whether `one` is better than `other` beyond the noise of these rows."""
    if not has_enough_clicks(*rows_and_clicks(labels)):
        return False
    level = 1 - (1 - LEVEL) / max(1, comparisons)
    if aim == "auc":
        return auc_difference(labels, one.logits, other.logits, level).low > 0
    return log_loss_difference(labels, one.logits, other.logits, level).high < 0


class MeasuredFront:
    """The smallest plans that lose no more than so much AUC, found by measuring plans of the planner's front.

    The front holds the plans of which none is both cheaper and predicted better; each is measured when a search reaches it, and
    once. A search bisects the front of every precision: the loss is taken to grow as plans get smaller.
    """

    def __init__(
        self, probe: PlanProbe, sensitivity: Sensitivity, spectra: Spectra, settings: PlanSettings, kind: str = "bytes",
        *, should_stop: Callable[[], bool] = never,
    ) -> None:  # fmt: skip
        """kind: the counted quantity that plans are to have little of."""
        self._probe, self._kind, self._should_stop = probe, kind, should_stop
        self._known: dict[CompressionSpec, tuple[Measurement, Measurement]] = {}
        ways = _ways(probe.profile, spectra, settings)
        if _MIXED in ways:  # among its plans are those of one precision; each measurement of integers takes a while
            ways = {suffix: ways[suffix] for suffix in (", float32", _MIXED)}
        self._fronts = {
            suffix: [_spec_of(found, options) for found in planned_front(probe.profile, sensitivity, kind, options)]
            for suffix, options in ways.items()
        }
        self.original = halves(probe.labels, probe.original)

    def smallest(self, max_auc_loss: float) -> Choice:
        """The smallest plan whose AUC on the choosing rows is at most so much below the original's.

        Raises:
            BudgetError: the loss allowed is negative, or nothing loses as little.
        """
        if not max_auc_loss >= 0:
            raise BudgetError(f"an AUC loss of at most {max_auc_loss:g} cannot be planned for; allow 0 or more, such as 0.0005")
        found = {
            PLANNED + suffix: spec
            for suffix, specs in self._fronts.items()
            if (spec := self._bisected(specs, max_auc_loss)) is not None
        }
        if not found:
            raise BudgetError(
                f"at these bits no plan loses as little as {max_auc_loss:g} of AUC on the validation rows; allow more, or "
                "plan with 32 bits among the choices"
            )
        best = min(found, key=lambda name: self.amount(found[name]))
        measured = {name: self._measured(spec)[1] for name, spec in found.items()}
        return Choice(name=best, specs=found, measured=measured, original=self.original[1])

    def amount(self, spec: CompressionSpec) -> float:
        """How much of the front's kind the served model has."""
        return _amount(self._probe.profile, spec, self._kind)

    def _bisected(self, specs: Sequence[CompressionSpec], max_auc_loss: float) -> CompressionSpec | None:
        low, high = 0, len(specs)
        while low < high:
            middle = (low + high) // 2
            if self._auc_loss(specs[middle]) <= max_auc_loss:
                high = middle
            else:
                low = middle + 1
        return specs[low] if low < len(specs) else None

    def _auc_loss(self, spec: CompressionSpec) -> float:
        return self.original[0].auc - self._measured(spec)[0].auc

    def _measured(self, spec: CompressionSpec) -> tuple[Measurement, Measurement]:
        if spec not in self._known:
            self._known[spec] = halves(self._probe.labels, self._probe.measure(spec, should_stop=self._should_stop))
        return self._known[spec]
