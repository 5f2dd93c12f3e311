"""From a budget to ranks: all layers at once, dense among the choices, by measured sensitivity. Without torch.

The loss of a plan is predicted as the sum of its layers'; its cost is exact, but not a sum: folding makes the first linear layers
read latents, so that a table's rank changes what they cost. The costs are therefore taken as a sum around a plan, the knapsack is
solved, and the costs are taken again around its answer, until nothing changes. What is returned was checked by its exact cost.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ctrlab.compression.configs import Bottleneck, Precision, RankPlan, table_form
from ctrlab.compression.plan import Spectra, pays, plan_ranks
from ctrlab.compression.prediction import serving_cost
from ctrlab.errors import CompressionError
from ctrlab.evaluation.profile import Cost, LayerProfile, ModelProfile
from ctrlab.planning import knapsack
from ctrlab.planning.sensitivity import Sensitivity

BudgetKind = Literal["parameters", "table_bytes", "bytes", "macs"]
BUDGET_KINDS: tuple[BudgetKind, ...] = ("parameters", "table_bytes", "bytes", "macs")
_UNITS: dict[BudgetKind, str] = {
    "parameters": "parameters", "table_bytes": "bytes of tables", "bytes": "bytes", "macs": "MACs per row",
}  # fmt: skip

#: Nats that losing all variance of a layer counts beside its measured loss: among ranks that were measured alike, more is safer.
CAUTION = 1e-5
#: Times the costs are taken anew around the plan they gave.
_ROUNDS = 5
_MAX_FRONT = 60
#: Ranks of a linear layer that are considered, beside those measured: about a fifth apart.
_GRID_FACTOR = 1.22

FloatArray = NDArray[np.float64]


class BudgetError(CompressionError):
    """No plan meets the budget; the sentence names the nearest that one meets."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """At most `limit` of what `kind` counts, in the form the model is served in.

    kind: "parameters"; "table_bytes" or "bytes", of the tables or in all; "macs", per row.
    """

    kind: BudgetKind
    limit: float

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise BudgetError(f"a budget of {self.limit:g} {_UNITS[self.kind]} is none; give a number above 0")


@dataclass(frozen=True, kw_only=True)
class PlannedRanks:
    """A plan with what it is predicted to do. cost: exact, of the serving form. log_loss, auc: on the rows of the sensitivity."""

    plan: RankPlan
    cost: Cost
    log_loss: float
    auc: float


def plan_for_budget(
    profile: ModelProfile,
    sensitivity: Sensitivity,
    budget: Budget,
    *,
    spectra: Spectra | None = None,
    multiple_of: int = 1,
    bottleneck: Bottleneck = "none",
    precision: Precision = "float32",
    method: str = "afm",
) -> PlannedRanks:
    """The ranks of least predicted log loss within a budget.

    Args:
        spectra: decide between ranks whose measured losses are alike: the one that keeps more variance.
        multiple_of: linear layers get only ranks that it divides; 8 suits most hardware.
        method: decides what ranks of tables cost; what they lose is AFM's in any case.

    Raises:
        BudgetError: no plan meets the budget.
    """
    problem = _Problem(profile, sensitivity, budget.kind, spectra, multiple_of, bottleneck, precision, method)
    target = budget.limit
    for _ in range(_ROUNDS):
        ranks = problem.within(target)
        if ranks is None:
            break
        planned = problem.planned(ranks)
        excess = _amount(planned.cost, budget.kind) - budget.limit
        if excess <= 0:  # as with latents it always is
            return planned
        target -= excess
    raise BudgetError(_too_small(budget, _amount(problem.planned(problem.smallest()).cost, budget.kind)))


def plan_for_loss(
    profile: ModelProfile,
    sensitivity: Sensitivity,
    max_auc_loss: float,
    *,
    kind: BudgetKind = "parameters",
    spectra: Spectra | None = None,
    multiple_of: int = 1,
    bottleneck: Bottleneck = "none",
    precision: Precision = "float32",
    method: str = "afm",
) -> PlannedRanks:
    """The smallest plan, by `kind`, that is predicted to lose at most `max_auc_loss` of AUC.

    Raises:
        BudgetError: the loss allowed is negative.
    """
    if not max_auc_loss >= 0:
        raise BudgetError(f"an AUC loss of at most {max_auc_loss:g} cannot be planned for; allow 0 or more, such as 0.0005")
    problem = _Problem(profile, sensitivity, kind, spectra, multiple_of, bottleneck, precision, method)
    return problem.planned(problem.cheapest(max_auc_loss))


def planned_front(
    profile: ModelProfile,
    sensitivity: Sensitivity,
    kind: BudgetKind = "parameters",
    *,
    spectra: Spectra | None = None,
    multiple_of: int = 1,
    bottleneck: Bottleneck = "none",
    precision: Precision = "float32",
    method: str = "afm",
) -> list[PlannedRanks]:
    """Plans of which none is both cheaper and predicted better than another, cheapest first; the last leaves all dense."""
    problem = _Problem(profile, sensitivity, kind, spectra, multiple_of, bottleneck, precision, method)
    plans = [problem.planned(ranks) for ranks in problem.front()]
    plans.sort(key=lambda plan: (_amount(plan.cost, kind), plan.log_loss))
    kept: list[PlannedRanks] = []
    for plan in plans:
        if not kept or plan.log_loss < kept[-1].log_loss:
            kept.append(plan)
    places = np.unique(np.linspace(0, len(kept) - 1, min(len(kept), _MAX_FRONT)).round().astype(int))
    return [kept[place] for place in places]


def uniform_energy_plan(profile: ModelProfile, spectra: Spectra, budget: Budget, *, precision: Precision = "float32") -> RankPlan:
    """Every layer keeps the same share of its variance, the largest that meets the budget; BudgetError where none does."""
    # Ranks change at the cumulative shares themselves, and nowhere between.
    known = np.concatenate([spectra[layer.layer_name].cumulative for layer in profile.compressible])
    return _largest(profile, budget, precision, np.unique(known), lambda share: plan_ranks(profile, spectra, energy=share))


def uniform_rank_plan(profile: ModelProfile, budget: Budget, *, precision: Precision = "float32") -> RankPlan:
    """Every layer keeps the same share of its width, the largest that meets the budget; BudgetError where none does."""
    widths = {layer.layer_name: layer.out_features for layer in profile.compressible}
    shares = np.unique([step / width for width in widths.values() for step in range(1, width + 1)])

    def plan(share: float) -> RankPlan:
        return plan_ranks(profile, ranks={name: max(1, ceil(share * width - 1e-9)) for name, width in widths.items()})

    return _largest(profile, budget, precision, shares, plan)


def _largest(
    profile: ModelProfile, budget: Budget, precision: Precision, shares: FloatArray, plan: Callable[[float], RankPlan]
) -> RankPlan:
    """The plan of the largest of the ascending `shares` that meets the budget, by bisection: a larger share costs more."""

    def cost(made: RankPlan) -> float:
        return _amount(serving_cost(profile, made.as_dict(), precision=precision), budget.kind)

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
    return f"no plan has at most {budget.limit:,.0f} {unit}; the smallest there is has {smallest:,.0f}: ask for that or more"


def _amount(cost: Cost, kind: BudgetKind) -> float:
    """What `kind` counts of a cost."""
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
        spectra: Spectra | None,
        multiple_of: int,
        bottleneck: Bottleneck,
        precision: Precision,
        method: str = "afm",
    ) -> None:
        if multiple_of < 1:
            raise BudgetError(f"ranks cannot be multiples of {multiple_of}; give 1 for any rank, or 8")
        # What is no latents costs at most what latents cost that do not fold, and little less.
        self.profile = profile if table_form(method) == "latents" else profile.unfolded()
        self.whole_profile, self.method = profile, method
        self.sensitivity, self.kind = sensitivity, kind
        self.bottleneck, self.precision = bottleneck, precision
        self._amounts: dict[tuple[int, ...], float] = {}
        self.layers = [layer for layer in profile.compressible if layer.layer_name in sensitivity.layers]
        self.options = [_options(layer, multiple_of) for layer in self.layers]
        self.log_losses = [self._losses(layer, own, spectra) for layer, own in zip(self.layers, self.options, strict=True)]
        self.auc_losses = [self._auc_losses(layer, own) for layer, own in zip(self.layers, self.options, strict=True)]

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
        """The exact cost of a plan, as far as `kind` counts it."""
        key = tuple(ranks.get(layer.layer_name, 0) for layer in self.layers)
        if key not in self._amounts:
            self._amounts[key] = _amount(serving_cost(self.profile, ranks, self.bottleneck, precision=self.precision), self.kind)
        return self._amounts[key]

    def planned(self, ranks: Mapping[str, int]) -> PlannedRanks:
        """The plan with its predictions."""
        return PlannedRanks(
            plan=RankPlan.of(ranks),
            cost=serving_cost(
                self.whole_profile, ranks, self.bottleneck, precision=self.precision, method=self.method
            ),
            log_loss=self.sensitivity.predicted_log_loss(ranks), auc=self.sensitivity.predicted_auc(ranks),
        )  # fmt: skip

    def within(self, limit: float) -> dict[str, int] | None:
        """The plan of least loss whose exact cost is at most `limit`; None where there is none."""
        smallest = self.smallest()
        if self.amount(smallest) > limit:
            return None
        best = smallest
        for start in (smallest, {}, self._ranks([len(own) // 2 for own in self.options])):
            best = self._better(best, start, limit)
        return best

    def _better(self, best: dict[str, int], start: dict[str, int], limit: float) -> dict[str, int]:
        """`best`, or a plan of less loss that is found by taking the costs around `start`, then around what that gave."""
        around, target = start, limit
        for _ in range(_ROUNDS):
            costs, offset = self._costs(around)
            picks = knapsack.exact(costs, self.log_losses, target - offset)
            if picks is None:
                break
            found = self._ranks(picks.options)
            excess = self.amount(found) - limit
            if excess <= 0:
                if self._loss(found) < self._loss(best):
                    best = found
                if found == around:
                    break
                target = limit
            else:  # the sum around another plan was too low for this one
                target -= excess
            around = found
        return best

    def cheapest(self, max_auc_loss: float) -> dict[str, int]:
        """The plan of least cost whose predicted AUC loss is at most `max_auc_loss`."""
        best: dict[str, int] = {}
        around = best
        for _ in range(_ROUNDS):
            costs, _ = self._costs(around)
            picks = knapsack.exact(self.auc_losses, costs, max_auc_loss + 1e-12)
            assert picks is not None  # dense loses nothing
            found = self._ranks(picks.options)
            if self.amount(found) < self.amount(best):
                best = found
            if found == around:
                break
            around = found
        return best

    def front(self) -> list[dict[str, int]]:
        """The relaxation's vertices around the smallest plan, and around one half way."""
        plans: list[dict[str, int]] = [{}]
        around = self.smallest()
        for _ in range(2):
            costs, _ = self._costs(around)
            vertices = knapsack.front(costs, self.log_losses)
            places = np.unique(np.linspace(0, len(vertices) - 1, min(len(vertices), _MAX_FRONT)).astype(int))
            found = [self._ranks(vertices[place].options) for place in places]
            plans += found
            around = found[len(found) // 2]
        return plans

    def smallest(self) -> dict[str, int]:
        """The plan of least cost: all at their smallest rank, then those left dense, kind by kind, that are cheaper so."""
        around = {layer.layer_name: own[0] for layer, own in zip(self.layers, self.options, strict=True) if own[0] is not None}
        least = self.amount(around)
        together = [[layer.layer_name] for layer in self.layers if layer.kind == "linear"]
        together.append([layer.layer_name for layer in self.layers if layer.kind == "embedding"])
        for names in [*together, [name for own in together[:-1] for name in own]]:
            dense = {name: rank for name, rank in around.items() if name not in names}
            if (amount := self.amount(dense)) < least:
                around, least = dense, amount
        return around

    def _loss(self, ranks: Mapping[str, int]) -> float:
        """As the knapsack counts it."""
        return sum(
            float(losses[options.index(ranks.get(layer.layer_name))])
            for layer, options, losses in zip(self.layers, self.options, self.log_losses, strict=True)
        )

    def _ranks(self, picks: Sequence[int]) -> dict[str, int]:
        chosen = ((layer, own[pick]) for layer, own, pick in zip(self.layers, self.options, picks, strict=True))
        return {layer.layer_name: rank for layer, rank in chosen if rank is not None}

    def _costs(self, around: Mapping[str, int]) -> tuple[list[FloatArray], float]:
        """Costs of every option over dense, the other layers as in `around`; and what to add to a sum of them.

        All forms cost so and so much a rank, hence two ranks tell all; where two factors merge in the serving form they cost
        what the dense layer does.
        """
        lines: dict[tuple[str, int, int], tuple[float, float]] = {}
        costs = []
        offset = self.amount(around)
        for layer, options in zip(self.layers, self.options, strict=True):
            intercept, slope = self._line(layer, around, lines)
            own = np.array([0.0 if rank is None else min(intercept + slope * rank, 0.0) for rank in options])
            costs.append(own)
            offset -= float(own[options.index(around.get(layer.layer_name))])
        return costs, offset

    def _line(
        self, layer: LayerProfile, around: Mapping[str, int], lines: dict[tuple[str, int, int], tuple[float, float]]
    ) -> tuple[float, float]:
        """The cost over dense of a rank: intercept and slope.

        Tables of one embedding differ by their rows alone: what the projection or the readers take is measured once for all.
        """
        if layer.kind != "embedding":
            return self._measured_line(layer, around)
        rows = layer.in_features * {"parameters": 1.0, "macs": 0.0}.get(self.kind, self._bytes_a_number)
        shape = (layer.embedding, layer.positions, layer.out_features)
        if shape not in lines:
            intercept, slope = self._measured_line(layer, around)
            lines[shape] = intercept + rows * layer.out_features, slope - rows
        intercept, slope = lines[shape]
        return intercept - rows * layer.out_features, slope + rows

    @property
    def _bytes_a_number(self) -> float:
        return {"float32": float(self.profile.element_bytes), "int8": 1.0, "int4": 0.5}[self.precision]

    def _measured_line(self, layer: LayerProfile, around: Mapping[str, int]) -> tuple[float, float]:
        others = {name: rank for name, rank in around.items() if name != layer.layer_name}
        # Not 1 and 2, for two numbers of 4 bits share a byte.
        dense, one, three = self.amount(others), *(self.amount({**others, layer.layer_name: rank}) for rank in (1, 3))
        return (3 * one - three) / 2 - dense, (three - one) / 2


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
