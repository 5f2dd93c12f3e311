"""The multiple-choice knapsack: one option a group, the least total loss within a budget. Groups are layers elsewhere.

Exact by dynamic programming over groups, with states pruned by the linear relaxation (Sinha and Zoltners, 1979; Dyer, 1984;
Zemel, 1984); the front is that relaxation's vertices. Rank choice as such a problem: LEMS and BALF (low-rank factorisation for a
budget), and AIMET's greedy rank selection, which is the walk down the front.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
#: Largest number of states kept after a group. Models stay far below; adversarial problems end within 0.1 s and report their gap.
MAX_STATES = 2_000


@dataclass(frozen=True, kw_only=True)
class Picks:
    """The option taken in each group, as indices into the given arrays, with their total cost and loss.

    gap: no choice within the budget has a loss smaller than `loss - gap`; 0 where the best was proven.
    """

    options: tuple[int, ...]
    cost: float
    loss: float
    gap: float = 0.0


@dataclass(frozen=True)
class _Group:
    """Options that no other of the group beats, by rising cost and falling loss, and those on their lower convex hull."""

    options: NDArray[np.intp]
    costs: FloatArray
    losses: FloatArray
    hull: NDArray[np.intp]


@dataclass(frozen=True)
class _Relaxation:
    """The least loss some groups can reach with a budget, options mixed at will: vertices of a convex falling line.

    costs, losses: (v,) of the vertices. groups, places: (v - 1,) the group that moves between two vertices, and its hull place
    after.
    """

    costs: FloatArray
    losses: FloatArray
    groups: NDArray[np.intp]
    places: NDArray[np.intp]

    def bound(self, budgets: FloatArray) -> FloatArray:
        """A loss that no choice within each budget beats; infinite where none exists."""
        bound = np.interp(budgets, self.costs, self.losses)
        return np.where(budgets < self.costs[0], np.inf, bound)

    def reached(self, budgets: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
        """The loss of the last vertex within each budget, which a real choice has, and that vertex; infinite and -1 for none."""
        vertex = np.searchsorted(self.costs, budgets, side="right") - 1
        return np.where(vertex < 0, np.inf, self.losses[np.maximum(vertex, 0)]), vertex


def exact(costs: Sequence[ArrayLike], losses: Sequence[ArrayLike], budget: float, below: float = np.inf) -> Picks | None:
    """The choice of least loss whose cost is at most `budget`; among equals the cheaper one.

    None where the budget is too small, or no loss is less than `below`.

    Args:
        costs: an array (options,) a group. losses: likewise, of any sign.
        budget: in the unit of the costs.
    """
    groups = _groups(costs, losses)
    if not groups:
        return Picks(options=(), cost=0.0, loss=0.0) if budget >= 0 and below > 0 else None
    # Groups with much to decide first: bounds get tight early.
    order = sorted(range(len(groups)), key=lambda number: -float(np.ptp(groups[number].costs)))
    ordered = [groups[number] for number in order]
    rests = _relaxations(ordered)
    if rests[0].costs[0] > budget:
        return None
    found = _search(ordered, rests, float(budget), float(below))
    if found is None:
        return None
    options = np.empty(len(groups), dtype=int)
    options[order] = found.options
    cost = sum(float(np.asarray(own, float)[option]) for own, option in zip(costs, options, strict=True))
    loss = sum(float(np.asarray(own, float)[option]) for own, option in zip(losses, options, strict=True))
    # The search sums in another order, so a result may be below the limit by rounding alone.
    if loss >= below:
        return None
    return Picks(options=tuple(int(option) for option in options), cost=cost, loss=loss, gap=found.gap)


def front(costs: Sequence[ArrayLike], losses: Sequence[ArrayLike]) -> list[Picks]:
    """The vertices of the lower convex hull of all choices' (cost, loss), cheapest first, down to the least loss of all."""
    groups = _groups(costs, losses)
    relaxation = _relaxations(groups)[0]
    places = [0] * len(groups)
    points = []
    for vertex, (cost, loss) in enumerate(zip(relaxation.costs, relaxation.losses, strict=True)):
        if vertex:
            places[relaxation.groups[vertex - 1]] = int(relaxation.places[vertex - 1])
        options = tuple(int(group.options[group.hull[place]]) for group, place in zip(groups, places, strict=True))
        points.append(Picks(options=options, cost=float(cost), loss=float(loss)))
    return points


def _groups(costs: Sequence[ArrayLike], losses: Sequence[ArrayLike]) -> list[_Group]:
    if len(costs) != len(losses):
        raise ValueError(f"{len(costs)} groups have costs and {len(losses)} have losses")
    return [_group(np.asarray(cost, float), np.asarray(loss, float)) for cost, loss in zip(costs, losses, strict=True)]


def _group(costs: FloatArray, losses: FloatArray) -> _Group:
    if costs.shape != losses.shape or costs.ndim != 1 or not len(costs):
        raise ValueError(f"a group needs one cost and one loss an option, got shapes {costs.shape} and {losses.shape}")
    order = np.lexsort((losses, costs))
    best = np.minimum.accumulate(losses[order])
    kept = order[np.r_[True, best[1:] < best[:-1]]]
    return _Group(kept, costs[kept], losses[kept], _hull(costs[kept], losses[kept]))


def _hull(costs: FloatArray, losses: FloatArray) -> NDArray[np.intp]:
    """Places on the lower convex hull of points with rising cost and falling loss (monotone chain)."""
    hull: list[int] = []
    for place in range(len(costs)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (losses[b] - losses[a]) * (costs[place] - costs[b]) < (losses[place] - losses[b]) * (costs[b] - costs[a]):
                break
            hull.pop()
        hull.append(place)
    return np.array(hull)


def _relaxations(groups: Sequence[_Group]) -> list[_Relaxation]:
    """Of all groups, of all but the first, and so on down to none: the cheapest choice, then hull segments, steepest first."""
    starts = np.array([(group.costs[0], group.losses[0]) for group in groups]).reshape(-1, 2)
    moves = [np.diff(np.stack([group.costs[group.hull], group.losses[group.hull]]), axis=1) for group in groups]
    segments = np.concatenate([np.zeros((2, 0)), *moves], axis=1)
    owners = np.repeat(np.arange(len(groups)), [move.shape[1] for move in moves])
    places = np.concatenate([np.zeros(0, int), *(np.arange(1, move.shape[1] + 1) for move in moves)])
    # Stable, so that segments of one group on one straight line stay in their order.
    order = np.argsort(segments[1] / segments[0], kind="stable")
    segments, owners, places = segments[:, order], owners[order], places[order]
    found = []
    for first in range(len(groups) + 1):
        own = owners >= first
        costs, losses = np.cumsum(np.concatenate([starts[first:].sum(axis=0)[:, None], segments[:, own]], axis=1), axis=1)
        found.append(_Relaxation(costs, losses, owners[own] - first, places[own]))
    return found


@dataclass
class _Stage:
    """States after some groups: the state each came from, and the place it took in the group."""

    parents: NDArray[np.intp]
    places: NDArray[np.intp]


@dataclass
class _Incumbent:
    """The best complete choice so far: a state, then the rest by a vertex of its relaxation."""

    loss: float = np.inf
    cost: float = np.inf
    stage: int = 0
    state: int = 0
    vertex: int = 0


@dataclass(frozen=True)
class _Found:
    options: list[int]
    gap: float


def _search(groups: Sequence[_Group], rests: Sequence[_Relaxation], budget: float, below: float) -> _Found | None:
    costs, losses = np.zeros(1), np.zeros(1)
    stages: list[_Stage] = []
    best, dropped = _Incumbent(loss=below), np.inf
    _improve(best, 0, costs, losses, rests[0], budget)
    for number, group in enumerate(groups):
        all_costs = (costs[:, None] + group.costs).ravel()
        all_losses = (losses[:, None] + group.losses).ravel()
        bounds = all_losses + rests[number + 1].bound(budget - all_costs)
        live = np.flatnonzero(bounds <= best.loss)
        live = live[_undominated(all_costs[live], all_losses[live])]
        if len(live) > MAX_STATES:
            by_bound = live[np.argsort(bounds[live], kind="stable")]
            dropped = min(dropped, float(bounds[by_bound[MAX_STATES]]))
            live = np.sort(by_bound[:MAX_STATES])
        costs, losses = all_costs[live], all_losses[live]
        stages.append(_Stage(live // len(group.costs), live % len(group.costs)))
        if not len(live):
            break  # rounding alone can do that: the incumbent is the best
        _improve(best, number + 1, costs, losses, rests[number + 1], budget)
    if best.loss >= below:
        return None
    return _Found(_trace(groups, stages, rests, best), max(0.0, best.loss - dropped))


def _undominated(costs: FloatArray, losses: FloatArray) -> NDArray[np.intp]:
    """Indices of points that no other beats in both, by rising cost; of equal points the first."""
    order = np.lexsort((losses, costs))
    best = np.minimum.accumulate(losses[order])
    kept: NDArray[np.intp] = order[np.r_[True, best[1:] < best[:-1]]] if len(order) else order
    return kept


def _improve(best: _Incumbent, stage: int, costs: FloatArray, losses: FloatArray, rest: _Relaxation, budget: float) -> None:
    """Complete every state by the last vertex within its budget; keep the best completion."""
    reached, vertex = rest.reached(budget - costs)
    totals = losses + reached
    state = int(np.argmin(totals))
    if vertex[state] < 0:
        return
    cost = float(costs[state] + rest.costs[vertex[state]])
    if (totals[state], cost) < (best.loss, best.cost):
        best.loss, best.cost, best.stage, best.state, best.vertex = float(totals[state]), cost, stage, state, int(vertex[state])


def _trace(groups: Sequence[_Group], stages: Sequence[_Stage], rests: Sequence[_Relaxation], best: _Incumbent) -> list[int]:
    """The options of the incumbent, group by group."""
    relaxation = rests[best.stage]
    rest = dict(zip(relaxation.groups[: best.vertex].tolist(), relaxation.places[: best.vertex].tolist(), strict=True))
    places = [int(groups[best.stage + number].hull[rest.get(number, 0)]) for number in range(len(groups) - best.stage)]
    state = best.state
    for stage in reversed(stages[: best.stage]):
        places.insert(0, int(stage.places[state]))
        state = int(stage.parents[state])
    return [int(group.options[place]) for group, place in zip(groups, places, strict=True)]
