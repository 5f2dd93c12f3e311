"""References to parameters that frameworks keep outside the module tree, in optimizers and regularizers, after replacement."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

from ctrlab.errors import CompressionError

#: {id of a parameter of the original: the parameters of the copy that replace it}
ReplacedParameters = Mapping[int, Sequence[Parameter]]


@contextmanager
def detached_attributes(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Remove these attributes from `model` inside the block, so that a deep copy does not copy optimizers and data loaders."""
    state = vars(model)
    kept = {name: state.pop(name) for name in names if name in state}
    try:
        yield
    finally:
        state.update(kept)


def replaced_parameters(before: nn.Module, after: nn.Module) -> dict[int, list[Parameter]]:
    """{id of a parameter of `before`: the parameters of its copy `after` that replace it}.

    The parameter of an unchanged layer is replaced by its own copy. Each parameter of a replaced layer is replaced by all
    parameters of the new layer.
    """
    replaced: dict[int, list[Parameter]] = {}
    for name, parameter in before.named_parameters(remove_duplicate=False):
        place = _replaced_place(before, after, name.split(".")[:-1])
        now = [after.get_parameter(name)] if place is None else list(after.get_submodule(place).parameters())
        replaced.setdefault(id(parameter), []).extend(now)
    return {key: _unique(now) for key, now in replaced.items()}


def _replaced_place(before: nn.Module, after: nn.Module, path: Sequence[str]) -> str | None:
    """Name of the outermost module on the path whose class has changed; None if there is none."""
    for depth in range(1, len(path) + 1):
        place = ".".join(path[:depth])
        if type(before.get_submodule(place)) is not type(after.get_submodule(place)):
            return place
    return None


def _unique(parameters: Sequence[Parameter]) -> list[Parameter]:
    return list({id(parameter): parameter for parameter in parameters}.values())


def optimizer_for(optimizer: torch.optim.Optimizer, replaced: ReplacedParameters) -> torch.optim.Optimizer:
    """An optimizer of the same class, parameter groups and settings over the new parameters, with fresh moments.

    Each group keeps its current learning rate.
    """
    taken: set[int] = set()
    groups = []
    for group in optimizer.param_groups:
        in_group = _unique([new for parameter in group["params"] for new in replaced.get(id(parameter), [parameter])])
        own = [parameter for parameter in in_group if id(parameter) not in taken]
        taken |= {id(parameter) for parameter in own}
        groups.append({**group, "params": own})
    accepted = inspect.signature(type(optimizer)).parameters
    settings: dict[str, Any] = {name: value for name, value in optimizer.defaults.items() if name in accepted}
    return type(optimizer)([group for group in groups if group["params"]], **settings)


def check_methods(model: nn.Module, framework: str, methods: Sequence[str]) -> None:
    """Check that `model` has the methods of a model of `framework`.

    Raises:
        CompressionError: a method is missing.
    """
    if missing := [name for name in methods if not hasattr(model, name)]:
        raise CompressionError(
            f"{type(model).__name__} is not a {framework} model: it has no {', '.join(missing)}; ctrlab.compress takes any module"
        )
