"""Adam's steps for single rows of lookup tables, and the steps that rows have missed.

Compiled by numba, for the CPU. A row's numbers are computed by one thread: results do not depend on the number of threads.
Shapes: U rows of a table, d their width.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ctrlab.kernels.rows import FloatArray
from ctrlab.kernels.threads import in_parts

#: Sums may be reordered within a row's d numbers, never between rows; nan and inf stay what they are.
_vectorised = njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})


def lazy_adam_(
    weight: FloatArray, exp_avg: FloatArray, exp_avg_sq: FloatArray, rows: NDArray[np.int64], grad: FloatArray,
    *, step: int, lr: float, betas: tuple[float, float], epsilon: float, l2: float = 0.0,
) -> None:  # fmt: skip
    """One step of Adam for the table rows `rows` alone, in place; grad (U, d), step counted from 1."""
    correction, square_correction = 1 - betas[0] ** step, (1 - betas[1] ** step) ** 0.5
    rate, unbias = np.float32(lr / correction), np.float32(1 / square_correction)
    fresh1, beta2, fresh2 = np.float32(1 - betas[0]), np.float32(betas[1]), np.float32(1 - betas[1])
    small, decay = np.float32(epsilon), np.float32(l2)
    in_parts(
        lambda first, last: _lazy_adam(
            weight, exp_avg, exp_avg_sq, rows, grad, rate, unbias, fresh1, beta2, fresh2, small, decay, first, last
        ),
        len(rows),
        elements=grad.size,
    )


@_vectorised
def _lazy_adam(weight: Any, exp_avg: Any, exp_avg_sq: Any, rows: Any, grad: Any, rate: Any, unbias: Any, fresh1: Any, beta2: Any,
               fresh2: Any, epsilon: Any, l2: Any, first: int, last: int) -> None:  # fmt: skip
    for slot in range(first, last):
        row = rows[slot]
        for j in range(weight.shape[1]):
            g = grad[slot, j] + l2 * weight[row, j]
            m = exp_avg[row, j] + (g - exp_avg[row, j]) * fresh1
            v = exp_avg_sq[row, j] * beta2 + g * g * fresh2
            exp_avg[row, j] = m
            exp_avg_sq[row, j] = v
            weight[row, j] -= rate * m / (np.sqrt(v) * unbias + epsilon)


class MissedSteps:
    """What `catch_up_` must know of the steps done: their sizes and bias corrections.

    rates: (steps,) float64, of the steps from the first one on, as they were.
    """

    def __init__(self, betas: tuple[float, float], epsilon: float, rates: Iterable[float] = ()) -> None:
        self.betas, self.epsilon = betas, epsilon
        # Behind so many steps without a gradient momentum has faded below float32's last bit of all that it did before.
        passed = np.arange(math.ceil(math.log(2**-24) / math.log(betas[0])) + 1)
        self._momentum = (betas[0] ** passed).astype(np.float32)
        self._spread = (betas[1] ** (passed / 2)).astype(np.float32)
        self.step = 0
        self._rates, self._sizes, self._unbias = np.empty(256), np.empty(256, np.float32), np.empty(256, np.float32)
        for rate in rates:
            self.add(rate)

    @property
    def rates(self) -> NDArray[np.float64]:
        """(steps,)."""
        return self._rates[: self.step]

    def add(self, rate: float) -> None:
        """One more step is done, of the size `rate`."""
        if self.step == len(self._rates):
            arrays = (self._rates, self._sizes, self._unbias)
            self._rates, self._sizes, self._unbias = (np.concatenate([array, np.empty_like(array)]) for array in arrays)
        self.step += 1
        self._rates[self.step - 1] = rate
        self._sizes[self.step - 1] = rate / (1 - self.betas[0] ** self.step)
        self._unbias[self.step - 1] = (1 - self.betas[1] ** self.step) ** -0.5

    def catch_up_(
        self, weight: FloatArray, exp_avg: FloatArray, exp_avg_sq: FloatArray, last: NDArray[np.int32], rows: NDArray[np.int64]
    ) -> None:
        """Bring table rows to where dense Adam has them after `step` steps, in place.

        A row without a gradient goes on along its fading momentum: with k steps missed,
        w -= sum_{i=1..k} rate_i beta1^i m / (sqrt(beta2^i v) / sqrt(1 - beta2^t_i) + epsilon), m = beta1^k m, v = beta2^k v.

        Args:
            last: (num_rows,) after how many steps each row is up to date, 0 where it never had a gradient.
            rows: (U,) distinct.
        """
        arrays = (self._sizes, self._unbias, self._momentum, self._spread)
        in_parts(
            lambda first, end: _catch_up(
                weight, exp_avg, exp_avg_sq, last, rows, *arrays, np.float32(self.epsilon), np.float64(self.betas[1]), self.step,
                first, end,
            ),
            len(rows),
            elements=len(rows) * weight.shape[1],
        )  # fmt: skip


@_vectorised
def _catch_up(weight: Any, exp_avg: Any, exp_avg_sq: Any, last: Any, rows: Any, sizes: Any, unbias: Any, momentum: Any,
              spread: Any, epsilon: Any, beta2: Any, step: int, first: int, end: int) -> None:  # fmt: skip
    most = len(momentum) - 1
    width = weight.shape[1]
    deviation, moved = np.empty(width, np.float32), np.empty(width, np.float32)
    for place in range(first, end):
        row = rows[place]
        since = last[row]
        missed = step - since
        if since == 0 or missed == 0:
            continue
        last[row] = step
        steps = min(missed, most)
        faded = np.float32(beta2**missed)
        for j in range(width):
            deviation[j] = np.sqrt(exp_avg_sq[row, j])
            exp_avg_sq[row, j] *= faded
            moved[j] = 0
        for i in range(1, steps + 1):
            size, scale = sizes[since + i - 1] * momentum[i], unbias[since + i - 1] * spread[i]
            for j in range(width):
                moved[j] += size / (deviation[j] * scale + epsilon)
        left = momentum[missed] if missed < most else np.float32(0)
        for j in range(width):
            weight[row, j] -= exp_avg[row, j] * moved[j]
            exp_avg[row, j] *= left
