"""Adam for single rows of lookup tables, and the updates that dense Adam makes to rows without a gradient.

Compiled by numba, for the CPU. A row's numbers are computed by one thread: results do not depend on the number of threads.
Shapes: U rows of a table, d their width.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.kernels.compile import REORDER_SUMS, compiled
from ctrlab.kernels.parts import Parts, in_one_part
from ctrlab.kernels.rows import FloatArray, in_line
from ctrlab.kernels.vectors import (
    LANES,
    add,
    all_lanes,
    divide,
    load,
    multiply,
    multiply_add,
    prefetch,
    prefetch_row,
    square_root,
    store,
    subtract,
)

#: Sums may be reordered within a row's d numbers, never between rows; nan and inf stay what they are.
_vectorised = compiled(fastmath=REORDER_SUMS | {"arcp"})

#: How many rows ahead a row is prefetched into the cache.
_AHEAD = 16


def lazy_adam_(
    weight: FloatArray, exp_avg: FloatArray, exp_avg_sq: FloatArray, rows: NDArray[np.int64], grad: FloatArray,
    *, step: int, lr: float, betas: tuple[float, float], epsilon: float, l2: float = 0.0,
    last: NDArray[np.int32] | None = None, parts: Parts = in_one_part,
) -> None:  # fmt: skip
    """One step of Adam for the table rows `rows` alone, in place; grad (U, d), step counted from 1.

    Args:
        last: (num_rows,), becomes `step` for these rows.
    """
    correction, square_correction = 1 - betas[0] ** step, (1 - betas[1] ** step) ** 0.5
    rate, unbias = np.float32(lr / correction), np.float32(1 / square_correction)
    fresh1, beta2, fresh2 = np.float32(1 - betas[0]), np.float32(betas[1]), np.float32(1 - betas[1])
    small, decay = np.float32(epsilon), np.float32(l2)
    arrays = in_line(weight), in_line(exp_avg), in_line(exp_avg_sq), in_line(grad)
    marked = np.empty(0, np.int32) if last is None else last
    parts(
        lambda first, end: _lazy_adam(
            *arrays, rows, marked, weight.shape[1], step, rate, unbias, fresh1, beta2, fresh2, small, decay, first, end
        ),
        len(rows),
        elements=grad.size,
    )


@_vectorised
def _lazy_adam(weight: Any, exp_avg: Any, exp_avg_sq: Any, grad: Any, rows: Any, last: Any, width: int, step: int, rate: Any,
               unbias: Any, fresh1: Any, beta2: Any, fresh2: Any, epsilon: Any, l2: Any, first: int,
               end: int) -> None:  # fmt: skip
    whole = width // LANES * LANES
    rates, unbiased, fresh, kept = all_lanes(rate), all_lanes(unbias), all_lanes(fresh1), all_lanes(beta2)
    fresh_square, small, decay = all_lanes(fresh2), all_lanes(epsilon), all_lanes(l2)
    for slot in range(first, end):
        if slot + _AHEAD < end:
            ahead = rows[slot + _AHEAD] * width
            prefetch_row(weight, ahead, width)
            prefetch_row(exp_avg, ahead, width)
            prefetch_row(exp_avg_sq, ahead, width)
            if len(last):
                prefetch(last, rows[slot + _AHEAD])
        row = rows[slot]
        if len(last):
            last[row] = step
        for j in range(0, whole, LANES):
            place = row * width + j
            old = load(weight, place)
            g = multiply_add(decay, old, load(grad, slot * width + j))
            m = load(exp_avg, place)
            m = multiply_add(subtract(g, m), fresh, m)
            v = multiply_add(multiply(g, g), fresh_square, multiply(load(exp_avg_sq, place), kept))
            store(exp_avg, place, m)
            store(exp_avg_sq, place, v)
            moved = divide(multiply(rates, m), multiply_add(square_root(v), unbiased, small))
            store(weight, place, subtract(old, moved))
        for j in range(whole, width):
            place = row * width + j
            of_one = grad[slot * width + j] + l2 * weight[place]
            mean = exp_avg[place] + (of_one - exp_avg[place]) * fresh1
            square = exp_avg_sq[place] * beta2 + of_one * of_one * fresh2
            exp_avg[place] = mean
            exp_avg_sq[place] = square
            weight[place] -= rate * mean / (np.sqrt(square) * unbias + epsilon)


class DeferredUpdates:
    """Step sizes and bias corrections of all steps so far, and the updates that rows without a gradient have missed.

    rates: (steps,) float64, the learning rate of every step from the first one on.
    """

    def __init__(self, betas: tuple[float, float], epsilon: float, rates: Iterable[float] = ()) -> None:
        self.betas, self.epsilon = betas, epsilon
        # After so many steps without a gradient momentum has decayed below float32's precision.
        passed = np.arange(math.ceil(math.log(2**-24) / math.log(betas[0])) + 1)
        self._momentum = (betas[0] ** passed).astype(np.float32)
        self._spread = (betas[1] ** (passed / 2)).astype(np.float32)
        self.step = 0
        self._rates, self._sizes, self._unbias = np.empty(256), np.empty(256, np.float32), np.empty(256, np.float32)
        self._kept = np.empty(256, np.float32)
        for rate in rates:
            self.add(rate)

    @property
    def rates(self) -> NDArray[np.float64]:
        """(steps,)."""
        return self._rates[: self.step]

    def add(self, rate: float) -> None:
        """Record one more step with the learning rate `rate`."""
        if self.step == len(self._rates):
            arrays = (self._rates, self._sizes, self._unbias, self._kept)
            grown = (np.concatenate([array, np.empty_like(array)]) for array in arrays)
            self._rates, self._sizes, self._unbias, self._kept = grown
        done = self.step
        self.step += 1
        self._rates[done] = rate
        self._sizes[done] = rate / (1 - self.betas[0] ** self.step)
        self._unbias[done] = (1 - self.betas[1] ** self.step) ** -0.5
        self._kept[done] = self.betas[1] ** self.step

    def apply_(
        self, weight: FloatArray, exp_avg: FloatArray, exp_avg_sq: FloatArray, last: NDArray[np.int32], rows: NDArray[np.int64],
        parts: Parts = in_one_part,
    ) -> None:  # fmt: skip
        """Apply the updates that table rows have missed, in place: they are then where dense Adam has them after `step` steps.

        Dense Adam moves a row without a gradient along its decaying momentum: with k steps missed,
        w -= sum_{i=1..k} rate_i beta1^i m / (sqrt(beta2^i v) / sqrt(1 - beta2^t_i) + epsilon), m = beta1^k m, v = beta2^k v.

        Args:
            last: (num_rows,) the step up to which each row is up to date, 0 where it never had a gradient.
            rows: (U,) distinct.
        """
        tables = in_line(weight), in_line(exp_avg), in_line(exp_avg_sq)
        arrays = (self._sizes, self._unbias, self._momentum, self._spread, self._kept)
        parts(
            lambda first, end: _apply_deferred(
                *tables, last, rows, *arrays, weight.shape[1], np.float32(self.epsilon), self.step, first, end
            ),
            len(rows),
            elements=len(rows) * weight.shape[1],
        )


@_vectorised
def _apply_deferred(weight: Any, exp_avg: Any, exp_avg_sq: Any, last: Any, rows: Any, sizes: Any, unbias: Any, momentum: Any,
              spread: Any, kept: Any, width: int, epsilon: Any, step: int, first: int, end: int) -> None:  # fmt: skip
    most = len(momentum) - 1
    whole = width // LANES * LANES
    small = all_lanes(epsilon)
    for place in range(first, end):
        if place + 2 * _AHEAD < end:
            prefetch(last, rows[place + 2 * _AHEAD])
        if place + _AHEAD < end:
            row = rows[place + _AHEAD]
            if 0 < last[row] < step:
                prefetch_row(weight, row * width, width)
                prefetch_row(exp_avg, row * width, width)
                prefetch_row(exp_avg_sq, row * width, width)
        row = rows[place]
        since = last[row]
        missed = step - since
        if since == 0 or missed == 0:
            continue
        last[row] = step
        steps = min(missed, most)
        faded, left = kept[missed - 1], momentum[missed] if missed < most else np.float32(0)
        for j in range(0, whole, LANES):
            at = row * width + j
            m, v = load(exp_avg, at), load(exp_avg_sq, at)
            deviation, moved = square_root(v), all_lanes(np.float32(0))
            for i in range(1, steps + 1):
                size, scale = sizes[since + i - 1] * momentum[i], unbias[since + i - 1] * spread[i]
                moved = add(moved, divide(all_lanes(size), multiply_add(deviation, all_lanes(scale), small)))
            store(weight, at, subtract(load(weight, at), multiply(m, moved)))
            store(exp_avg, at, multiply(m, all_lanes(left)))
            store(exp_avg_sq, at, multiply(v, all_lanes(faded)))
        for at in range(row * width + whole, (row + 1) * width):
            root, total = np.sqrt(exp_avg_sq[at]), np.float32(0)
            for i in range(1, steps + 1):
                total += sizes[since + i - 1] * momentum[i] / (root * unbias[since + i - 1] * spread[i] + epsilon)
            weight[at] -= exp_avg[at] * total
            exp_avg[at] *= left
            exp_avg_sq[at] *= faded
