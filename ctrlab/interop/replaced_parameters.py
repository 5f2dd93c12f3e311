"""What frameworks keep beside the module: references to weights that compression has replaced by others."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

from ctrlab.errors import CompressionError

#: {id of a parameter of the original: the parameters that took its place}
Heirs = Mapping[int, Sequence[Parameter]]


@contextmanager
def laid_aside(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Take these attributes from `model` for a while: a copy of an optimizer or of a data loader would be large and of no use."""
    state = vars(model)
    kept = {name: state.pop(name) for name in names if name in state}
    try:
        yield
    finally:
        state.update(kept)


def heirs_of(before: nn.Module, after: nn.Module) -> dict[int, list[Parameter]]:
    """The parameters of `after` that stand for each one of `before`.

    A parameter that was left alone has itself as its one heir. The heirs of a replaced layer's parameters are all parameters
    of what replaced it.
    """
    heirs: dict[int, list[Parameter]] = {}
    for name, parameter in before.named_parameters(remove_duplicate=False):
        place = _replaced_place(before, after, name.split(".")[:-1])
        now = [after.get_parameter(name)] if place is None else list(after.get_submodule(place).parameters())
        heirs.setdefault(id(parameter), []).extend(now)
    return {key: _unique(now) for key, now in heirs.items()}


def _replaced_place(before: nn.Module, after: nn.Module, path: Sequence[str]) -> str | None:
    """The outermost module on the way that is of another class now; None where there is none."""
    for depth in range(1, len(path) + 1):
        place = ".".join(path[:depth])
        if type(before.get_submodule(place)) is not type(after.get_submodule(place)):
            return place
    return None


def _unique(parameters: Sequence[Parameter]) -> list[Parameter]:
    return list({id(parameter): parameter for parameter in parameters}.values())


def optimizer_for(optimizer: torch.optim.Optimizer, heirs: Heirs) -> torch.optim.Optimizer:
    """An optimizer of the same class, groups and settings over the heirs. Its moments start anew.

    A group keeps the learning rate it had come down to.
    """
    taken: set[int] = set()
    groups = []
    for group in optimizer.param_groups:
        heirs_in_group = _unique([heir for parameter in group["params"] for heir in heirs.get(id(parameter), [parameter])])
        fresh = [heir for heir in heirs_in_group if id(heir) not in taken]
        taken |= {id(heir) for heir in fresh}
        groups.append({**group, "params": fresh})
    accepted = inspect.signature(type(optimizer)).parameters
    settings: dict[str, Any] = {name: value for name, value in optimizer.defaults.items() if name in accepted}
    return type(optimizer)([group for group in groups if group["params"]], **settings)


def check_methods(model: nn.Module, framework: str, methods: Sequence[str]) -> None:
    """Refuse what is no model of `framework`."""
    if missing := [name for name in methods if not hasattr(model, name)]:
        raise CompressionError(
            f"{type(model).__name__} is not a {framework} model: it has no {', '.join(missing)}; ctrlab.compress takes any module"
        )
