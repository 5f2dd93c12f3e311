"""The knapsack against every combination there is."""

from itertools import product

import numpy as np
import pytest

from ctrlab.plans import knapsack
from ctrlab.plans.knapsack import exact, front


def random_groups(random, digits=2):
    groups = [int(random.integers(1, 6)) for _ in range(int(random.integers(1, 6)))]
    costs = [random.integers(0, 12, size) for size in groups]
    return costs, [np.round(random.normal(size=size), digits) for size in groups]


def totals(costs, losses):
    """(cost, loss) of every combination."""
    return np.array(
        [
            (sum(costs[group][option] for group, option in enumerate(picks)), sum(losses[g][o] for g, o in enumerate(picks)))
            for picks in product(*(range(len(own)) for own in costs))
        ]
    )


@pytest.mark.parametrize("digits", [0, 1, 2])
@pytest.mark.parametrize("seed", range(60))
def test_no_combination_within_the_budget_is_better_and_none_as_good_is_cheaper(seed, digits):
    random = np.random.default_rng((seed, digits))
    costs, losses = random_groups(random, digits)
    every = totals(costs, losses)
    for budget in (every[:, 0].min(), *random.integers(0, 40, 3)):  # the first is met exactly
        fitting = every[every[:, 0] <= budget]
        found = exact(costs, losses, float(budget))
        if not len(fitting):
            assert found is None
            continue
        least = fitting[:, 1].min()
        assert exact(costs, losses, float(budget), least) is None
        assert exact(costs, losses, float(budget), least + 1e-6).options == found.options
        assert found.loss == pytest.approx(least, abs=1e-9) and found.gap == 0
        assert found.cost == fitting[np.isclose(fitting[:, 1], least, atol=1e-9), 0].min()
        taken = [costs[group][option] for group, option in enumerate(found.options)]
        assert sum(taken) == found.cost <= budget


@pytest.mark.parametrize("seed", range(60))
def test_the_front_is_the_lower_hull_of_all_combinations(seed):
    random = np.random.default_rng(seed)
    costs, losses = random_groups(random)
    points = front(costs, losses)
    every = totals(costs, losses)
    assert points[0].cost == every[:, 0].min() and points[-1].loss == pytest.approx(every[:, 1].min(), abs=1e-9)
    xs, ys = np.array([p.cost for p in points]), np.array([p.loss for p in points])
    assert (np.diff(xs) > 0).all() and (np.diff(ys) < 0).all()
    assert (np.diff(np.diff(ys) / np.diff(xs)) >= -1e-9).all()
    assert (every[:, 1] >= np.interp(every[:, 0], xs, ys) - 1e-9).all()
    for point in points:
        assert point.cost == sum(costs[g][o] for g, o in enumerate(point.options))
        assert point.loss == pytest.approx(sum(losses[g][o] for g, o in enumerate(point.options)), abs=1e-9)


def test_sixty_layers_of_twelve_ranks_are_solved_to_the_end():
    random = np.random.default_rng(0)
    costs = [np.arange(1, 13) * int(10 ** random.uniform(3, 6.5)) for _ in range(60)]
    losses = [np.sort(random.exponential(size=12) * 10 ** random.uniform(-4, 0))[::-1] for _ in range(60)]
    lowest, highest = sum(own.min() for own in costs), sum(own.max() for own in costs)
    line = front(costs, losses)
    for share in (0.1, 0.5, 0.9):
        budget = lowest + share * (highest - lowest)
        found = exact(costs, losses, budget)
        bound = np.interp(budget, [p.cost for p in line], [p.loss for p in line])
        assert found.gap == 0 and found.cost <= budget and found.loss >= bound - 1e-9
        assert found.loss <= min(p.loss for p in line if p.cost <= budget) + 1e-12


def test_where_states_had_to_be_dropped_the_gap_holds(monkeypatch):
    random = np.random.default_rng(3)
    for _ in range(40):
        costs, losses = [random.integers(0, 50, 5) for _ in range(5)], [random.random(5) for _ in range(5)]
        budget = float(random.integers(40, 160))
        best = exact(costs, losses, budget)
        with monkeypatch.context() as patch:
            patch.setattr(knapsack, "MAX_STATES", 2)
            found = exact(costs, losses, budget)
        if best is not None:
            assert best.loss <= found.loss <= best.loss + found.gap + 1e-12


def test_no_groups_cost_nothing():
    assert exact([], [], 0.0).options == () and exact([], [], -1.0) is None and front([], [])[0].cost == 0


@pytest.mark.parametrize(("costs", "losses"), [([[1, 2]], [[1]]), ([[]], [[]]), ([[1]], [])])
def test_groups_that_do_not_fit_together_are_refused(costs, losses):
    with pytest.raises(ValueError, match="group"):
        exact(costs, losses, 1.0)
