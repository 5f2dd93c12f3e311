"""From a budget to ranks: all layers at once, dense among the choices, by measured sensitivity. Without torch.

The loss of a plan is predicted as the sum of its layers'. Its cost is no sum where the model is folded, for the first linear
layers then read latents, but it is one for each choice of their ranks: one knapsack each, of which bounds leave few to solve
(`planning.forms`). So the plan is the best there is among the ranks considered: for models with one first layer, and for several
as long as their undominated choices are few (MAX_CHOICES; self-attention's projections have a few hundred). Against every choice
of ranks of small DeepFM, DCN, Wide & Deep, NFM and AutoInt it missed none. Two things are left to luck: a plan that is served in
the other form, of fewer MACs but more of what the budget counts, is planned again for a little less; and a knapsack of more than
MAX_STATES states.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ctrlab.errors import CompressionError
from ctrlab.models.profile import Cost, LayerProfile, ModelProfile
from ctrlab.plans.configs import UNCOMPRESSED, CompressionSpec, RankPlan
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.methods import METHODS
from ctrlab.plans.ranks import Spectra, pays, plan_ranks
from ctrlab.plans.sensitivity import Sensitivity
from ctrlab.plans.serving_forms import FormSearch, FormSums
from ctrlab.plans.sizes import size_forms
from ctrlab.plans.speed import SpeedModel

BudgetKind = Literal["parameters", "table_bytes", "bytes", "macs", "latency_ms"]
#: Those that need nothing measured but sensitivity.
BUDGET_KINDS: tuple[BudgetKind, ...] = ("parameters", "table_bytes", "bytes", "macs")
_UNITS: dict[BudgetKind, str] = {
    "parameters": "parameters", "table_bytes": "bytes of tables", "bytes": "bytes", "macs": "MACs per row", "latency_ms": "ms",
}  # fmt: skip

#: Nats that losing all variance of a layer counts beside its measured loss: among ranks that were measured alike, more is safer.
CAUTION = 1e-5
#: Times a plan that is served in the form that costs more is planned again for less.
_ROUNDS = 16
_MAX_FRONT = 60
#: Ranks of a linear layer that are considered, beside those measured: about a fifth apart.
_GRID_FACTOR = 1.22

FloatArray = NDArray[np.float64]


class BudgetError(CompressionError):
    """No plan meets the budget; the sentence names the nearest that one meets."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """At most `limit` of what `kind` counts, in the form the model is served in.

    kind: "parameters"; "table_bytes" or "bytes", of the tables or in all; "macs", per row; "latency_ms", of one call.
    batch_size: rows of that call; given with this kind alone.
    """

    kind: BudgetKind
    limit: float
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if (self.kind == "latency_ms") != (self.batch_size is not None):
            raise BudgetError("a budget of milliseconds needs the batch size that it is for, and no other has one")
        if not self.limit > 0:
            raise BudgetError(f"a budget of {self.limit:g} {_UNITS[self.kind]} is none; give a number above 0")


@dataclass(frozen=True, kw_only=True)
class PlannedRanks:
    """A plan with what it is predicted to do.

    cost: exact, of the serving form. log_loss, auc: on the rows of the sensitivity. latency_ms: where a speed model was given.
    """

    plan: RankPlan
    cost: Cost
    log_loss: float
    auc: float
    latency_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What a planner takes as given.

    spec: method, bottleneck and precision of the planned compression. Its ranks are what is planned, and the basis is a table's
        own. The method decides what ranks of tables cost; what they lose is AFM's in any case.
    spectra: decide between ranks whose measured losses are alike: the one that keeps more variance.
    multiple_of: linear layers get only ranks that it divides; 8 suits most hardware.
    speed: of this model at the budget's batch size, for a budget of milliseconds, which is one of float32 models; the rest
        ignore it. That plan is the best as far as times are sums, which holds to a few per cent.
    """

    spec: CompressionSpec = UNCOMPRESSED
    spectra: Spectra | None = None
    multiple_of: int = 1
    speed: SpeedModel | None = None


NO_OPTIONS = PlanOptions()


def plan_for_budget(
    profile: ModelProfile,
    sensitivity: Sensitivity,
    budget: Budget,
    options: PlanOptions = NO_OPTIONS,
) -> PlannedRanks:
    """The ranks of least predicted log loss within a budget.

    Raises:
        BudgetError: no plan meets the budget, or it is one of milliseconds and no such speed was measured.
    """
    problem = _Problem(profile, sensitivity, budget.kind, options, _speed_for(budget, options.speed))
    target = budget.limit
    for _ in range(_ROUNDS):
        ranks = problem.within(target)
        if ranks is None:
            break
        planned = problem.planned(ranks)
        excess = problem.whole_amount(planned) - budget.limit
        if excess <= 0:  # as with latents it always is
            return planned
        target -= excess
    raise BudgetError(_too_small(budget, problem.whole_amount(problem.planned(problem.smallest()))))


def plan_for_loss(
    profile: ModelProfile,
    sensitivity: Sensitivity,
    max_auc_loss: float,
    kind: BudgetKind = "parameters",
    options: PlanOptions = NO_OPTIONS,
) -> PlannedRanks:
    """The smallest plan, by `kind`, that is predicted to lose at most `max_auc_loss` of AUC.

    Raises:
        BudgetError: the loss allowed is negative.
    """
    if not max_auc_loss >= 0:
        raise BudgetError(f"an AUC loss of at most {max_auc_loss:g} cannot be planned for; allow 0 or more, such as 0.0005")
    problem = _Problem(profile, sensitivity, kind, options)
    return problem.planned(problem.cheapest(max_auc_loss))


def planned_front(
    profile: ModelProfile,
    sensitivity: Sensitivity,
    kind: BudgetKind = "parameters",
    options: PlanOptions = NO_OPTIONS,
) -> list[PlannedRanks]:
    """Plans of which none is both cheaper and predicted better than another, cheapest first; the last leaves all dense."""
    problem = _Problem(profile, sensitivity, kind, options)
    # By what the planner minimises, not by log loss alone: of plans of equal log loss those that keep more variance belong here.
    plans = [(problem.planned(ranks), problem.loss(ranks)) for ranks in problem.front()]
    plans.sort(key=lambda pair: (_amount(pair[0].cost, kind), pair[1]))
    kept: list[PlannedRanks] = []
    least = np.inf
    for plan, loss in plans:
        if loss < least:
            kept.append(plan)
            least = loss
    places = np.unique(np.linspace(0, len(kept) - 1, min(len(kept), _MAX_FRONT)).round().astype(int))
    return [kept[place] for place in places]


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

    def cost(made: RankPlan) -> float:
        return _amount(serving_cost(profile, made.as_dict(), spec), budget.kind)

    low, high = 0, len(shares) - 1
    best = plan(float(shares[0]))
    if (smallest := cost(best)) > budget.limit:
        unit = _UNITS[budget.kind]
        raise BudgetError(
            f"no common share has at most {budget.limit:,.0f} {unit}; the smallest has {smallest:,.0f}: ask for that or more"
        )
    while low < high:
        middle = (low + high + 1) // 2
        tried = plan(float(shares[middle]))
        if cost(tried) <= budget.limit:
            low, best = middle, tried
        else:
            high = middle - 1
    return best


def _too_small(budget: Budget, smallest: float) -> str:
    unit = _UNITS[budget.kind]
    if budget.kind == "latency_ms":
        return (
            f"no plan is predicted to take at most {budget.limit:.3g} ms at batch {budget.batch_size:,}; the fastest takes "
            f"{milliseconds_up(smallest)} ms: ask for that or more"
        )
    return f"no plan has at most {budget.limit:,.0f} {unit}; the smallest there is has {smallest:,.0f}: ask for that or more"


def milliseconds_up(milliseconds: float) -> str:
    """Three digits, and no less than the number: what is named can be asked for."""
    step = 10.0 ** (floor(log10(milliseconds)) - 2)
    return f"{ceil(milliseconds / step) * step:.10g}"


def _speed_for(budget: Budget, speed: SpeedModel | None) -> SpeedModel | None:
    if budget.kind != "latency_ms":
        return None
    if speed is None:
        raise BudgetError(f"the speed of this model at batch {budget.batch_size:,} is not known; measure it first")
    if speed.batch_size != budget.batch_size:
        raise BudgetError(
            f"the speed of this model was measured at batch {speed.batch_size:,}, not at {budget.batch_size:,}; measure it there"
        )
    return speed


def _amount(cost: Cost, kind: BudgetKind) -> float:
    """What `kind` counts of a cost; milliseconds are no part of it."""
    amounts: dict[BudgetKind, Callable[[Cost], int]] = {
        "parameters": lambda cost: cost.parameters, "table_bytes": lambda cost: cost.bytes_tables,
        "bytes": lambda cost: cost.size_bytes, "macs": lambda cost: cost.macs,
    }  # fmt: skip
    return float(amounts[kind](cost))


class _Problem:
    """The layers of one model as groups of a knapsack: each group's options are ranks that pay, and dense (None) last."""

    def __init__(
        self,
        profile: ModelProfile,
        sensitivity: Sensitivity,
        kind: BudgetKind,
        options: PlanOptions,
        speed: SpeedModel | None = None,
    ) -> None:
        if options.multiple_of < 1:
            raise BudgetError(f"ranks cannot be multiples of {options.multiple_of}; give 1 for any rank, or 8")
        # What the planner solves for: tables as latents, each with a basis of its own.
        self.spec = options.spec.replace(plan=RankPlan(), method="afm", basis="per_field")
        self.whole_spec = options.spec.replace(plan=RankPlan(), basis="per_field")
        # Other forms of tables cost at most what latents cost that do not fold, and little less.
        self.profile = profile if METHODS[options.spec.method].keeps_latents else profile.unfolded()
        self.whole_profile = profile
        self.sensitivity, self.kind, self.speed = sensitivity, kind, speed
        self.layers = [layer for layer in profile.compressible if layer.layer_name in sensitivity.layers]
        self.options = [_options(layer, options.multiple_of) for layer in self.layers]
        self.log_losses = [
            self._losses(layer, own, options.spectra) for layer, own in zip(self.layers, self.options, strict=True)
        ]
        self.auc_losses = [self._auc_losses(layer, own) for layer, own in zip(self.layers, self.options, strict=True)]
        self.forms: Sequence[FormSums] = (
            speed.sums(profile, self.layers, self.options)
            if speed
            else size_forms(profile, self.layers, self.options, lambda cost: _amount(cost, kind), self.spec)
        )

    def _losses(self, layer: LayerProfile, options: Sequence[int | None], spectra: Spectra | None) -> FloatArray:
        measured = self.sensitivity.layers[layer.layer_name]
        spectrum = spectra[layer.layer_name] if spectra else None
        return np.array(
            [
                0.0 if rank is None
                else measured.log_loss_increase(rank) + (CAUTION * spectrum.variance_lost(rank) if spectrum else 0.0)
                for rank in options
            ]
        )  # fmt: skip

    def _auc_losses(self, layer: LayerProfile, options: Sequence[int | None]) -> FloatArray:
        measured = self.sensitivity.layers[layer.layer_name]
        return np.array([0.0 if rank is None else measured.auc_loss(rank) for rank in options])

    def amount(self, ranks: Mapping[str, int]) -> float:
        """The exact cost of a plan, as far as `kind` counts it; or its predicted milliseconds."""
        if self.speed:
            return self.speed.predict_ms(self.profile, ranks)
        return _amount(serving_cost(self.profile, ranks, self.spec), self.kind)

    def whole_amount(self, planned: PlannedRanks) -> float:
        """What a plan costs in the form that its method gives the tables."""
        return planned.latency_ms if planned.latency_ms is not None else _amount(planned.cost, self.kind)

    def planned(self, ranks: Mapping[str, int]) -> PlannedRanks:
        """The plan with its predictions."""
        return PlannedRanks(
            plan=RankPlan.of(ranks),
            cost=serving_cost(self.whole_profile, ranks, self.whole_spec),
            log_loss=self.sensitivity.predicted_log_loss(ranks), auc=self.sensitivity.predicted_auc(ranks),
            latency_ms=self.speed.predict_ms(self.profile, ranks) if self.speed else None,
        )  # fmt: skip

    def within(self, limit: float) -> dict[str, int] | None:
        """The plan of least loss whose exact cost is at most `limit`; None where there is none."""
        best: dict[str, int] | None = None
        least = np.inf
        if self.amount(smallest := self.smallest()) <= limit:
            best, least = smallest, self.loss(smallest)
        for form in self.forms:
            search, target = FormSearch(form, self.log_losses), limit
            for number in range(_ROUNDS):
                found = search.least_loss(target, least)
                if found is None:
                    break
                ranks = self._ranks(found.picks)
                if (excess := self.amount(ranks) - limit) <= 0:
                    best, least = ranks, found.loss
                    break
                # Served in the other form, which costs more of this: what costs less as it stands, at last much less. Times are
                # sums but roughly: by what the sum was too low.
                careful = self.speed is None and number < _ROUNDS // 2
                target = found.cost - (1e-9 * limit if careful else excess)
        return best

    def cheapest(self, max_auc_loss: float) -> dict[str, int]:
        """The plan of least cost whose predicted AUC loss is at most `max_auc_loss`."""
        plans: list[dict[str, int]] = [{}]
        for form in self.forms:
            found = FormSearch(form, self.auc_losses).least_cost(max_auc_loss + 1e-12)
            assert found is not None  # dense loses nothing
            plans.append(self._ranks(found.picks))
        return min(plans, key=self.amount)

    def smallest(self) -> dict[str, int]:
        """The plan of least cost."""
        found = [self._ranks(FormSearch(form, self.log_losses).smallest().picks) for form in self.forms]
        return min([{}, *found], key=self.amount)

    def front(self) -> list[dict[str, int]]:
        """The vertices of both forms' fronts."""
        vertices = [vertex for form in self.forms for vertex in FormSearch(form, self.log_losses).front()]
        return [{}, *(self._ranks(vertex.picks) for vertex in vertices)]

    def loss(self, ranks: Mapping[str, int]) -> float:
        """As the knapsack counts it."""
        return sum(
            float(losses[options.index(ranks.get(layer.layer_name))])
            for layer, options, losses in zip(self.layers, self.options, self.log_losses, strict=True)
        )

    def _ranks(self, picks: Sequence[int]) -> dict[str, int]:
        chosen = ((layer, own[pick]) for layer, own, pick in zip(self.layers, self.options, picks, strict=True))
        return {layer.layer_name: rank for layer, rank in chosen if rank is not None}


def _options(layer: LayerProfile, multiple_of: int) -> list[int | None]:
    """Ranks that pay, ascending, then None for dense."""
    last = ceil(layer.break_even) - 1
    if layer.kind == "embedding" and layer.out_features <= 32:
        ranks = list(range(1, last + 1))
    else:
        grid, rank = set(), 1.0
        while rank <= last:
            grid.add(int(rank))
            rank = max(rank + 1, rank * _GRID_FACTOR)
        grid |= set(range(8, last + 1, 8)) if last <= 256 else set()
        ranks = sorted(grid)
    if layer.kind == "linear" and multiple_of > 1:
        ranks = sorted({multiple_of * ceil(rank / multiple_of) for rank in ranks})
    return [*(rank for rank in ranks if pays(layer, rank)), None]
