"""Adam for models whose tables are far larger than a batch.

`adam` is dense Adam, as published CTR results have it (FuxiCTR, DeepCTR): every row of a table moves at every step, a row
without a gradient along its fading momentum. `lazy_adam` moves a row and its moments only in the steps whose batch holds its
id; a row that was seen once then goes a tenth as far. The two train to different weights from the same seed. The L2 term of
`adam` covers whole tables, that of `lazy_adam` the batch's rows alone. Bias correction counts all steps in both.

A step of either costs what the batch costs, however large the table: `DeferredAdam` makes up for the steps that a row has
missed when the row is next read, and where all must be up to date. With an L2 term over whole tables, or off the CPU, `adam`
really moves every row at every step.
"""

import functools
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ctrlab.kernels.adam import MissedSteps, lazy_adam_
from ctrlab.kernels.lookup import compiled_for
from ctrlab.models.layers import LookupTable
from ctrlab.training.configs import FitConfig

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def table_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The weights of all lookup tables, shared ones once, in the order of the model's modules."""
    tables = {id(module.weight): module.weight for module in model.modules() if isinstance(module, LookupTable)}
    return [weight for weight in tables.values() if weight.requires_grad]


class FitOptimizer:
    """Adam over a whole model: tables as the config says, everything else densely.

    State is kept by parameter name, so that it can be written beside the weights and put back.
    """

    def __init__(self, model: nn.Module, config: FitConfig) -> None:
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._clip_norm = config.clip_norm
        tables = table_parameters(model)
        deferred = config.optimizer == "adam" and not config.l2_embedding and all(map(_can_defer, tables))
        by_rows = deferred or config.optimizer == "lazy_adam"
        known = {id(parameter) for parameter in tables}
        dense = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in known]
        groups = [{"params": dense, "weight_decay": config.l2_dense}]
        if not by_rows:
            groups.append({"params": tables, "weight_decay": config.l2_embedding})
        self._adam = torch.optim.Adam(groups, lr=config.learning_rate, betas=BETAS, eps=EPSILON, fused=True)
        rowwise = DeferredAdam if deferred else LazyAdam
        self._lazy_adam = rowwise(tables if by_rows else [], lr=config.learning_rate, l2=config.l2_embedding)
        self._look_ups = [module for module in model.modules() if isinstance(module, LookupTable)]
        for look_up in self._look_ups:
            look_up.sparse_gradient = by_rows
            if isinstance(self._lazy_adam, DeferredAdam) and look_up.weight.requires_grad:
                look_up.before_reading = functools.partial(self._lazy_adam.catch_up, look_up.weight)

    def settle(self) -> None:
        """Bring every row of every table to date: needed before anything reads weights past a look-up in training."""
        if isinstance(self._lazy_adam, DeferredAdam):
            self._lazy_adam.settle()

    def close(self) -> None:
        """Let go of the model, as it is."""
        for look_up in self._look_ups:
            look_up.before_reading = None

    def set_learning_rate(self, learning_rate: float) -> None:
        """The step size of all later steps, for tables and everything else."""
        self._lazy_adam.lr = learning_rate
        for group in self._adam.param_groups:
            group["lr"] = learning_rate

    def zero_grad(self) -> None:
        """Forget the last gradients."""
        self._adam.zero_grad()
        self._lazy_adam.zero_grad()

    def step(self) -> None:
        """Update from the gradients of the last backward pass, clipped when so configured."""
        for weight in self._lazy_adam.weights:
            if weight.grad is not None:
                weight.grad = _coalesced(weight.grad)
        if self._clip_norm:
            clip_gradients_(self._parameters(), self._clip_norm)
        self._adam.step()
        self._lazy_adam.step()

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, by parameter name and moment."""
        states = [*self._adam.state.items(), *self._lazy_adam.state.items()]
        return {f"{self._names[id(p)]}|{key}": value for p, state in states for key, value in state.items()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state_tensors`, onto the devices of the parameters."""
        by_name = {self._names[id(p)]: p for p in self._parameters()}
        lazy = {id(weight) for weight in self._lazy_adam.weights}
        for key, value in tensors.items():
            name, _, moment = key.rpartition("|")
            parameter = by_name[name]
            owner: LazyAdam | torch.optim.Adam = self._lazy_adam if id(parameter) in lazy else self._adam
            # What Python reads at every step stays off the graphics card.
            on_host = owner is self._lazy_adam and moment in ("step", "rates")
            owner.state.setdefault(parameter, {})[moment] = value if on_host else value.to(parameter.device)

    def _parameters(self) -> list[nn.Parameter]:
        dense = [parameter for group in self._adam.param_groups for parameter in group["params"]]
        return [*dense, *self._lazy_adam.weights]


class LazyAdam:
    """Adam that touches only the rows a coalesced sparse gradient names: weight, first and second moment alike."""

    def __init__(self, weights: Iterable[nn.Parameter], *, lr: float, l2: float = 0.0) -> None:
        self.weights = list(weights)
        self.lr = lr
        self.l2 = l2
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget the last gradients."""
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One update of the rows in each weight's `.grad`, which must be sparse and coalesced."""
        for weight in self.weights:
            if weight.grad is not None:
                self._update_(weight, weight.grad)

    def _update_(self, weight: nn.Parameter, grad: Tensor) -> None:
        state = self._state_of(weight)
        state["step"] += 1
        step = int(state["step"])
        rows, g = grad._indices()[0], grad._values()
        if compiled_for(weight) and weight.is_contiguous():
            arrays = (weight, state["exp_avg"], state["exp_avg_sq"], rows, g)
            lazy_adam_(
                *(array.detach().numpy() for array in arrays), step=step, lr=self.lr, betas=BETAS, epsilon=EPSILON, l2=self.l2,
                last=self._last_of(weight),
            )  # fmt: skip
            torch.autograd.graph.increment_version(weight)
            return
        touched = weight.index_select(0, rows)
        if self.l2:
            g = g.add(touched, alpha=self.l2)
        m = state["exp_avg"].index_select(0, rows).lerp_(g, 1 - BETAS[0])
        v = state["exp_avg_sq"].index_select(0, rows).mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
        correction = (1 - BETAS[1] ** step) ** 0.5
        touched.addcdiv_(m, v.sqrt().div_(correction).add_(EPSILON), value=-self.lr / (1 - BETAS[0] ** step))
        state["exp_avg"].index_copy_(0, rows, m)
        state["exp_avg_sq"].index_copy_(0, rows, v)
        weight.index_copy_(0, rows, touched)

    def _last_of(self, weight: nn.Parameter) -> NDArray[np.int32] | None:
        """(num_rows,): by what step each row is up to date, where anybody wants to know."""
        return None

    def _state_of(self, weight: nn.Parameter) -> dict[str, Tensor]:
        state = self.state.get(weight)
        if state is None:
            state = self.state[weight] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(weight, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(weight, requires_grad=False),
            }
        return state


class DeferredAdam(LazyAdam):
    """Dense Adam without an L2 term, to float32's rounding, at the cost of the batch's rows; float32 tables on the CPU only.

    state: LazyAdam's, "last" (num_rows,) int32, after how many steps a row is up to date (0: it never had a gradient, so there
    is nothing to make up for), and "rates", float64, the sizes of all steps.
    """

    def __init__(self, weights: Iterable[nn.Parameter], *, lr: float, l2: float = 0.0) -> None:
        super().__init__(weights, lr=lr, l2=l2)
        self._missed: dict[nn.Parameter, MissedSteps] = {}

    def catch_up(self, weight: nn.Parameter, rows: NDArray[np.int64]) -> None:
        """Make up for what the rows (U,) of a table have missed."""
        state = self.state.get(weight)
        if state is not None:
            moments = state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()
            self._missed_by(weight).catch_up_(weight.detach().numpy(), *moments, state["last"].numpy(), rows)

    def settle(self) -> None:
        """Make up for what any row of any table has missed."""
        for weight, state in self.state.items():
            last = state["last"]
            self.catch_up(weight, ((last > 0) & (last < int(state["step"]))).nonzero().flatten().numpy())

    def _update_(self, weight: nn.Parameter, grad: Tensor) -> None:
        super()._update_(weight, grad)  # its rows were brought to date when they were read
        missed, state = self._missed_by(weight), self._state_of(weight)
        missed.add(self.lr)
        state["rates"] = torch.from_numpy(missed.rates)

    def _last_of(self, weight: nn.Parameter) -> NDArray[np.int32] | None:
        last: NDArray[np.int32] = self._state_of(weight)["last"].numpy()
        return last

    def _missed_by(self, weight: nn.Parameter) -> MissedSteps:
        if weight not in self._missed:
            self._missed[weight] = MissedSteps(BETAS, EPSILON, self._state_of(weight)["rates"].tolist())
        return self._missed[weight]

    def _state_of(self, weight: nn.Parameter) -> dict[str, Tensor]:
        state = super()._state_of(weight)
        if "last" not in state:
            state |= {"last": torch.zeros(len(weight), dtype=torch.int32), "rates": torch.zeros(0, dtype=torch.float64)}
        return state


def _can_defer(weight: Tensor) -> bool:
    return compiled_for(weight) and weight.is_contiguous()


def _coalesced(grad: Tensor) -> Tensor:
    """A sparse gradient with each row once, in rising order. Autograd loses the mark of that, and `coalesce` would sort again."""
    rows = grad._indices()[0].cpu().numpy()  # where comparing them takes a tenth of the time that it takes torch
    if bool(np.all(rows[1:] > rows[:-1])):
        return grad._coalesced_(True)
    return grad.coalesce()


@torch.no_grad()
def clip_gradients_(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale all gradients, dense and coalesced sparse, so that their joint L2 norm is at most `max_norm`."""
    gradients = [p.grad._values() if p.grad.is_sparse else p.grad for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if scale.device.type == "cuda" or scale < 1.0:  # on a GPU, asking costs more than multiplying
        for gradient in gradients:
            gradient.mul_(scale)
