"""Adam for models whose tables are far larger than a batch.

`adam` is dense Adam, as published CTR results have it (FuxiCTR, DeepCTR): every row of a table moves at every step, a row
without a gradient along its decaying momentum. `lazy_adam` updates a row and its moments only in the steps whose batch holds its
id; a row that was seen once then moves a tenth as far. The two train to different weights from the same seed. The L2 term of
`adam` covers whole tables, that of `lazy_adam` the batch's rows alone. Bias correction counts all steps in both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ctrlab.models.layers import LookupTable

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class AdamSettings:
    """Which Adam, and how: `ctrlab.training.configs.FitConfig` explains the options."""

    optimizer: Literal["adam", "lazy_adam"] = "adam"
    learning_rate: float = 1e-3
    l2_embedding: float = 0.0
    l2_dense: float = 0.0
    clip_norm: float = 0.0


def table_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The weights of all lookup tables that train, shared ones once, in the order of the model's modules."""
    tables = {id(module.weight): module.weight for module in model.modules() if isinstance(module, LookupTable)}
    return [weight for weight in tables.values() if weight.requires_grad]


class FitOptimizer:
    """Adam over a whole model: tables by rows or densely, all other parameters densely.

    State is kept by parameter name, so that it can be stored beside the weights and restored.

    Args:
        by_rows: updates the tables from sparse gradients; None for dense updates from dense gradients.
    """

    def __init__(self, model: nn.Module, settings: AdamSettings, by_rows: "LazyAdam | None" = None) -> None:
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._clip_norm = settings.clip_norm
        tables = table_parameters(model)
        known = {id(parameter) for parameter in tables}
        dense = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in known]
        groups: list[dict[str, Any]] = [{"params": dense, "weight_decay": settings.l2_dense}]
        if by_rows is None:
            groups.append({"params": tables, "weight_decay": settings.l2_embedding})
        self._adam = torch.optim.Adam(groups, lr=settings.learning_rate, betas=BETAS, eps=EPSILON, fused=True)
        self._by_rows = by_rows or LazyAdam([], lr=settings.learning_rate)

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Of the next step: for tables updated by rows, and for all else."""
        return self._by_rows.lr, self._adam.param_groups[0]["lr"]

    def set_learning_rate(self, learning_rate: float) -> None:
        """The step size of all later steps, for tables and everything else."""
        self._by_rows.lr = learning_rate
        for group in self._adam.param_groups:
            group["lr"] = learning_rate

    def zero_grad(self) -> None:
        """Drop the last gradients."""
        self._adam.zero_grad()
        self._by_rows.zero_grad()

    def step(self) -> None:
        """Update from the gradients of the last backward pass, clipped where so configured."""
        for weight in self._by_rows.weights:
            if weight.grad is not None:
                weight.grad = coalesced(weight.grad)
        if self._clip_norm:
            clip_gradients_(self._parameters(), self._clip_norm)
        self._adam.step()
        self._by_rows.step()

    def settle(self) -> None:
        """Apply all deferred updates of tables."""
        self._by_rows.settle()

    def state_tensors(self) -> dict[str, Tensor]:
        """All that a resumed run needs, by parameter name and moment."""
        states = [*self._adam.state.items(), *self._by_rows.state.items()]
        return {f"{self._names[id(p)]}|{key}": value for p, state in states for key, value in state.items()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state_tensors`, onto the devices of the parameters."""
        by_name = {self._names[id(p)]: p for p in self._parameters()}
        lazy = {id(weight) for weight in self._by_rows.weights}
        for key, value in tensors.items():
            name, _, moment = key.rpartition("|")
            parameter = by_name[name]
            owner: LazyAdam | torch.optim.Adam = self._by_rows if id(parameter) in lazy else self._adam
            # What Python reads at every step stays off the graphics card.
            on_host = owner is self._by_rows and moment in ("step", "rates")
            owner.state.setdefault(parameter, {})[moment] = value if on_host else value.to(parameter.device)

    def _parameters(self) -> Sequence[nn.Parameter]:
        dense = [parameter for group in self._adam.param_groups for parameter in group["params"]]
        return [*dense, *self._by_rows.weights]


class OptimizerSteps:
    """The part of an engine that is its optimizer's; see `protocol.Engine`."""

    optimizer: FitOptimizer

    def zero_grad(self) -> None:
        """Drop the last gradients."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Update the model from the gradients of the last backward pass."""
        self.optimizer.step()

    def set_learning_rate(self, learning_rate: float) -> None:
        """The step size of all later steps."""
        self.optimizer.set_learning_rate(learning_rate)

    def settle(self) -> None:
        """Apply the deferred updates of all table rows, where any are."""
        self.optimizer.settle()

    def state_tensors(self) -> dict[str, Tensor]:
        """The optimizer's state by parameter name."""
        return self.optimizer.state_tensors()

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state_tensors`."""
        self.optimizer.load_state_tensors(tensors)


class LazyAdam:
    """Adam that updates only the rows of a coalesced sparse gradient: weight, first and second moment alike."""

    def __init__(self, weights: Iterable[nn.Parameter], *, lr: float, l2: float = 0.0) -> None:
        self.weights = list(weights)
        self.lr = lr
        self.l2 = l2
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Drop the last gradients."""
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One update of the rows in each weight's `.grad`, which must be sparse and coalesced."""
        for weight in self.weights:
            if weight.grad is not None:
                self._update_(weight, weight.grad)

    def settle(self) -> None:
        """Nothing is deferred."""

    def _update_(self, weight: nn.Parameter, grad: Tensor) -> None:
        state = self._state_of(weight)
        state["step"] += 1
        step = int(state["step"])
        rows, g = grad._indices()[0], grad._values()
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

    def _state_of(self, weight: nn.Parameter) -> dict[str, Tensor]:
        state = self.state.get(weight)
        if state is None:
            state = self.state[weight] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(weight, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(weight, requires_grad=False),
            }
        return state


def coalesced(grad: Tensor) -> Tensor:
    """A sparse gradient with each row once, sorted. Autograd loses the flag of a coalesced one; `coalesce` would sort again."""
    rows = grad._indices()[0].cpu().numpy()  # comparing them takes torch ten times as long
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
