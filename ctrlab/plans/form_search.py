"""The search for ranks in one serving form: the cost is a sum over layers once the ranks of the first layers are fixed.

As it stands, a model costs a sum over its layers. Folded it does not: its first linear layers read the tables' latents, so that
what a table's rank costs depends on the first layers' ranks. With those fixed it is a sum again: one knapsack a choice of them.
Most are never solved: a Lagrangian bound shows that they cannot improve on the best plan found (Fisher, 1981).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ctrlab.plans import knapsack

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
#: Choices of the first layers looked at, at most. One first layer has a few dozen, those of several multiply.
MAX_CHOICES = 600
#: Multipliers tried for a bound, and the decades they lie within to either side of where losses and costs balance.
_HALVINGS, _DECADES = 26, 9.0
_MAX_VERTICES = 60
#: A weight that only breaks ties: among plans equal in the objective, the better one in the other quantity is chosen.
_HARDLY = 1e-12


@dataclass(frozen=True, eq=False, kw_only=True)
class FormSums:
    """Cost of one form: a constant, the layers' own costs, and the widths of the latents times the slopes of their readers.

    fixed: with every layer dense.
    costs: an array (options,) a layer, over dense.
    widths: an array (options,) a layer, numbers over dense that the first layers read of it folded; zeros where it is no table.
    embeddings: of each layer, the column of slopes that its widths are multiplied with.
    base_slopes: (embeddings,) what a number more of an embedding's latents costs all readers that have no rank.
    slopes: {first layer: (options, embeddings)}, the cost of one more latent to that layer.
    """

    fixed: float
    costs: list[FloatArray]
    widths: list[FloatArray]
    embeddings: list[int]
    base_slopes: FloatArray
    slopes: dict[int, FloatArray]


@dataclass(frozen=True)
class Found:
    """One option a layer, the sum of their losses, and what the form costs."""

    picks: tuple[int, ...]
    loss: float
    cost: float


@dataclass(frozen=True, eq=False)
class _Choices:
    """Of the first layers: options (C, first layers), their losses and costs (C,), and the row of slopes that each makes (C,)."""

    options: IntArray
    losses: FloatArray
    costs: FloatArray
    rows: IntArray


@dataclass(frozen=True, eq=False)
class _Side:
    """Layers side by side. losses: (layers, options), infinite where a layer has fewer; costs: (slopes, layers, options)."""

    layers: list[int]
    losses: FloatArray
    costs: FloatArray

    def weighted(self, loss_weight: float, cost_weight: float) -> tuple[FloatArray, FloatArray, IntArray]:
        """Of options of the least weighted sum: losses and costs summed over layers (slopes,), and options (slopes, layers)."""
        picks = np.argmin(loss_weight * self.losses + cost_weight * self.costs, axis=2)
        costs = np.take_along_axis(self.costs, picks[..., None], axis=2).sum(axis=(1, 2))
        losses = self.losses[np.arange(len(self.layers)), picks].sum(axis=1)
        return losses, costs, picks


class FormSearch:
    """The plans of one form, by a loss for every option of every layer.

    complete: no choice of the first layers was left out, so the plans found are optimal.
    """

    def __init__(self, form: FormSums, losses: Sequence[FloatArray]) -> None:
        self.form, self.losses = form, losses
        self._choices, slopes, self.complete = self._first_choices()
        rest = [layer for layer in range(len(losses)) if layer not in form.slopes]
        tables = [layer for layer in rest if np.any(form.widths[layer])]
        self._tables = self._side(tables, slopes[:, [form.embeddings[layer] for layer in tables]])
        self._plain = self._side([layer for layer in rest if layer not in tables], np.zeros((1, len(rest) - len(tables))))

    def least_loss(self, budget: float, below: float = np.inf) -> Found | None:
        """The least loss whose cost is at most `budget`; None where none is under `below`."""
        return self._best(budget, below, costs_limited=True)

    def least_cost(self, max_loss: float, below: float = np.inf) -> Found | None:
        """The least cost whose loss is at most `max_loss`; None where none is under `below`."""
        return self._best(max_loss, below, costs_limited=False)

    def smallest(self) -> Found:
        """The least cost there is."""
        return self._supported(_HARDLY, 1.0)

    def front(self) -> list[Found]:
        """Vertices of the lower convex hull of all (cost, loss), cheapest first: between two, what is least along their line."""
        ends = self.smallest(), self._supported(1.0, _HARDLY / max(1.0, abs(self.form.fixed)))
        vertices = {end.picks: end for end in ends}
        waiting = [ends]
        while waiting and len(vertices) < _MAX_VERTICES:
            low, high = waiting.pop(0)
            if high.cost <= low.cost or high.loss >= low.loss:
                continue
            found = self._supported(high.cost - low.cost, low.loss - high.loss)
            if found.picks not in vertices:
                vertices[found.picks] = found
                waiting += [(low, found), (found, high)]
        return sorted(vertices.values(), key=lambda one: one.cost)

    def _first_choices(self) -> tuple[_Choices, FloatArray, bool]:
        options, losses, costs = np.zeros((1, 0), int), np.zeros(1), np.zeros(1)
        slopes, complete = self.form.base_slopes[None], True
        narrowest = np.zeros(len(self.form.base_slopes))
        for width, embedding in zip(self.form.widths, self.form.embeddings, strict=True):
            narrowest[embedding] += width.min()
        corners = np.array(list(product(*((0.0, narrow) for narrow in narrowest))))
        for layer, own in self.form.slopes.items():
            before, number = (part.ravel() for part in np.mgrid[: len(losses), : len(own)])
            losses = losses[before] + self.losses[layer][number]
            costs = costs[before] + self.form.costs[layer][number]
            slopes = slopes[before] + own[number]
            kept = _undominated(losses, costs[:, None] + slopes @ corners.T)
            if len(kept) > MAX_CHOICES:
                kept, complete = kept[np.linspace(0, len(kept) - 1, MAX_CHOICES).astype(int)], False
            options = np.concatenate([options[before[kept]], number[kept, None]], axis=1)
            losses, costs, slopes = losses[kept], costs[kept], slopes[kept]
        slopes, rows = np.unique(slopes, axis=0, return_inverse=True)
        return _Choices(options, losses, costs, rows.reshape(-1)), slopes, complete

    def _side(self, layers: list[int], slopes: FloatArray) -> _Side:
        """slopes: (rows, layers)."""
        most = max((len(self.losses[layer]) for layer in layers), default=1)

        def padded(arrays: Sequence[FloatArray], filling: float) -> FloatArray:
            rows = [np.pad(arrays[layer], (0, most - len(arrays[layer])), constant_values=filling) for layer in layers]
            return np.array(rows).reshape(len(layers), most)

        costs = padded(self.form.costs, 0.0) + slopes[..., None] * padded(self.form.widths, 0.0)
        return _Side(layers, padded(self.losses, np.inf), costs)

    def _best(self, limit: float, below: float, *, costs_limited: bool) -> Found | None:
        bounds, best = self._bounds(limit, costs_limited)
        if best is not None and not (best.loss if costs_limited else best.cost) < below:
            best = None
        for choice in np.argsort(bounds, kind="stable"):
            least = below if best is None else best.loss if costs_limited else best.cost
            if not bounds[choice] < least:
                break
            best = self._solved(int(choice), limit, least, costs_limited) or best
        return best

    def _bounds(self, limit: float, costs_limited: bool) -> tuple[FloatArray, Found | None]:
        """A lower bound for each choice of the first layers, and the best plan found while computing the bounds.

        The best choice's multiplier gives near-tight bounds for the others.
        """
        losses = sum(float(np.ptp(own)) for own in self.losses) or 1.0
        costs = sum(float(np.ptp(own)) for own in self.form.costs) or 1.0
        bounds = np.full(len(self._choices.losses), -np.inf)
        low, high, best = -_DECADES, _DECADES, None
        for _ in range(_HALVINGS):
            multiplier = 10.0 ** ((low + high) / 2) * (losses / costs if costs_limited else costs / losses)
            weights = (1.0, multiplier) if costs_limited else (multiplier, 1.0)
            own_losses, own_costs = self._weighted(*weights)
            aims, limited = (own_losses, own_costs) if costs_limited else (own_costs, own_losses)
            values = aims + multiplier * (limited - limit)
            bounds = np.maximum(bounds, values)
            fitting = np.flatnonzero(limited <= limit)
            if len(fitting):
                found = self._picked(int(fitting[np.argmin(aims[fitting])]), *weights)
                if best is None or (found.loss < best.loss if costs_limited else found.cost < best.cost):
                    best = found
            if limited[np.argmin(values)] > limit:
                low = (low + high) / 2
            else:
                high = (low + high) / 2
        return bounds, best

    def _weighted(self, loss_weight: float, cost_weight: float) -> tuple[FloatArray, FloatArray]:
        """Losses and costs (C,) of the plan whose weighted sum is least, for each choice of the first layers."""
        table_losses, table_costs, _ = self._tables.weighted(loss_weight, cost_weight)
        plain_losses, plain_costs, _ = self._plain.weighted(loss_weight, cost_weight)
        choices = self._choices
        losses = choices.losses + table_losses[choices.rows] + plain_losses[0]
        return losses, self.form.fixed + choices.costs + table_costs[choices.rows] + plain_costs[0]

    def _supported(self, loss_weight: float, cost_weight: float) -> Found:
        losses, costs = self._weighted(loss_weight, cost_weight)
        return self._picked(int(np.argmin(loss_weight * losses + cost_weight * costs)), loss_weight, cost_weight)

    def _picked(self, choice: int, loss_weight: float, cost_weight: float) -> Found:
        """The plan of `_weighted` for one choice."""
        row = int(self._choices.rows[choice])
        tables, plain = (side.weighted(loss_weight, cost_weight)[2] for side in (self._tables, self._plain))
        return self._whole(choice, [*tables[row], *plain[0]])

    def _whole(self, choice: int, rest: Sequence[int]) -> Found:
        """The plan of one choice and an option for each other layer, tables first."""
        layers = [*self.form.slopes, *self._tables.layers, *self._plain.layers]
        picks = np.empty(len(self.losses), int)
        picks[layers] = [*self._choices.options[choice], *rest]
        row = int(self._choices.rows[choice])
        cost = self.form.fixed + float(self._choices.costs[choice])
        cost += sum(float(self._tables.costs[row, place, picks[layer]]) for place, layer in enumerate(self._tables.layers))
        cost += sum(float(self._plain.costs[0, place, picks[layer]]) for place, layer in enumerate(self._plain.layers))
        loss = sum(float(own[pick]) for own, pick in zip(self.losses, picks, strict=True))
        return Found(tuple(picks.tolist()), loss, cost)

    def _solved(self, choice: int, limit: float, below: float, costs_limited: bool) -> Found | None:
        """The best plan with one choice of the first layers."""
        row = int(self._choices.rows[choice])
        sides = ((self._tables, row), (self._plain, 0))
        sizes = [(side, row, place, len(self.losses[layer])) for side, row in sides for place, layer in enumerate(side.layers)]
        losses = [side.losses[place, :size] for side, _, place, size in sizes]
        costs = [side.costs[row, place, :size] for side, row, place, size in sizes]
        loss, cost = float(self._choices.losses[choice]), self.form.fixed + float(self._choices.costs[choice])
        if costs_limited:
            picks = knapsack.exact(costs, losses, limit - cost, below - loss)
        else:
            picks = knapsack.exact(losses, costs, limit - loss, below - cost)
        return None if picks is None else self._whole(choice, picks.options)


def _undominated(losses: FloatArray, costs: FloatArray) -> IntArray:
    """Indices of undominated choices, by loss (C,) and by costs (C, corners) at the narrowest and widest latents."""
    points = np.column_stack([losses, costs])
    kept: list[int] = []
    front = np.empty_like(points)
    for place in np.lexsort(points.T[::-1]):  # a dominating point sorts before the point
        if not np.any(np.all(front[: len(kept)] <= points[place], axis=1)):
            front[len(kept)] = points[place]
            kept.append(int(place))
    return np.array(kept)
