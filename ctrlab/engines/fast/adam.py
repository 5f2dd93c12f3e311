"""Adam by rows in compiled loops, and dense Adam at the cost of the batch's rows; float32 tables in the CPU's memory."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ctrlab.engines.optim import BETAS, EPSILON, LazyAdam
from ctrlab.kernels.adam import DeferredUpdates, lazy_adam_
from ctrlab.kernels.parts import Parts, in_one_part


class CompiledLazyAdam(LazyAdam):
    """`LazyAdam` in one compiled pass over the rows."""

    def __init__(self, weights: Iterable[nn.Parameter], *, lr: float, l2: float = 0.0, parts: Parts = in_one_part) -> None:
        super().__init__(weights, lr=lr, l2=l2)
        self.parts = parts

    def _update_(self, weight: nn.Parameter, grad: Tensor) -> None:
        state = self._state_of(weight)
        state["step"] += 1
        arrays = (weight, state["exp_avg"], state["exp_avg_sq"], grad._indices()[0], grad._values())
        lazy_adam_(
            *(array.detach().numpy() for array in arrays), step=int(state["step"]), lr=self.lr, betas=BETAS, epsilon=EPSILON,
            l2=self.l2, last=self._last_of(weight), parts=self.parts,
        )  # fmt: skip
        torch.autograd.graph.increment_version(weight)

    def _last_of(self, weight: nn.Parameter) -> NDArray[np.int32] | None:
        """(num_rows,): the step up to which each row is up to date, where that is recorded."""
        return None


class DeferredAdam(CompiledLazyAdam):
    """Dense Adam without an L2 term, to float32's rounding, at the cost of the batch's rows.

    Updates that a row misses because a batch does not hold it are applied when the row is next read (`apply_deferred`), and where
    all rows must be up to date (`settle`).

    state: LazyAdam's, "last" (num_rows,) int32, the step up to which a row is up to date (0: it never had a gradient, so nothing
    is deferred), and "rates", float64, the step sizes of all steps.
    """

    def __init__(self, weights: Iterable[nn.Parameter], *, lr: float, l2: float = 0.0, parts: Parts = in_one_part) -> None:
        super().__init__(weights, lr=lr, l2=l2, parts=parts)
        self._deferred: dict[nn.Parameter, DeferredUpdates] = {}

    def apply_deferred(self, weight: nn.Parameter, rows: NDArray[np.int64]) -> None:
        """Apply the updates that the rows (U,) of a table have missed."""
        state = self.state.get(weight)
        if state is not None:
            moments = state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()
            self._deferred_of(weight).apply_(weight.detach().numpy(), *moments, state["last"].numpy(), rows, self.parts)

    def settle(self) -> None:
        """Apply all deferred updates of all tables."""
        for weight, state in self.state.items():
            last = state["last"]
            self.apply_deferred(weight, ((last > 0) & (last < int(state["step"]))).nonzero().flatten().numpy())

    def _update_(self, weight: nn.Parameter, grad: Tensor) -> None:
        super()._update_(weight, grad)  # deferred updates of its rows were applied when they were read
        deferred, state = self._deferred_of(weight), self._state_of(weight)
        deferred.add(self.lr)
        state["rates"] = torch.from_numpy(deferred.rates)

    def _last_of(self, weight: nn.Parameter) -> NDArray[np.int32] | None:
        last: NDArray[np.int32] = self._state_of(weight)["last"].numpy()
        return last

    def _deferred_of(self, weight: nn.Parameter) -> DeferredUpdates:
        if weight not in self._deferred:
            self._deferred[weight] = DeferredUpdates(BETAS, EPSILON, self._state_of(weight)["rates"].tolist())
        return self._deferred[weight]

    def _state_of(self, weight: nn.Parameter) -> dict[str, Tensor]:
        state = super()._state_of(weight)
        if "last" not in state:
            state |= {"last": torch.zeros(len(weight), dtype=torch.int32), "rates": torch.zeros(0, dtype=torch.float64)}
        return state
