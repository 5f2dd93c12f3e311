"""Copies of module trees over the same parameters, buffers and hooks."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def copy_tree(
    model: M, replaced: Mapping[type[nn.Module], type[nn.Module]] | None = None,
    where: Callable[[nn.Module], bool] = lambda module: True, **attributes: Any,
) -> M:  # fmt: skip
    """A copy of the tree of `model`: its mode and its modules are its own, parameters, buffers and hooks are the model's.

    Args:
        replaced: {class: subclass that its instances have in the copy}.
        where: whether an instance of such a class is replaced.
        attributes: set on every instance of these subclasses.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Dropout())
    >>> copy = copy_tree(model).eval()
    >>> copy[0].weight is model[0].weight, copy.training, model.training
    (True, False, True)
    """
    done: dict[int, Any] = {}

    def copied(module: Any) -> Any:
        if module is None or isinstance(module, torch.jit.ScriptModule):  # the latter has its children in C++
            return module
        if id(module) not in done:
            known = type(module) in replaced and where(module) if replaced else False
            copy = done[id(module)] = object.__new__(replaced[type(module)] if known and replaced else type(module))
            copy.__dict__ = module.__dict__ | (attributes if known else {})
            copy._modules = {name: copied(child) for name, child in module._modules.items()}
        return done[id(module)]

    return copied(model)  # type: ignore[no-any-return]
