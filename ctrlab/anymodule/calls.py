"""Calling a module on batches of any structure: tensors, arrays, tuples, mappings."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def run(module: nn.Module, batch: Any) -> None:
    """Call `module` on one batch, moved to its device.

    A tensor, an array or a named tuple is the only argument; a tuple or list holds the positional arguments; a mapping holds
    keyword arguments if its keys are names of `forward`'s parameters, otherwise it is the only argument.
    """
    batch = _moved(batch, _device_of(module))
    if isinstance(batch, Mapping) and _are_parameters(module, batch):
        module(**batch)
    elif isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields"):
        module(*batch)
    else:
        module(batch)


def _are_parameters(module: nn.Module, batch: Mapping[Any, Any]) -> bool:
    parameters = inspect.signature(module.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return True
    return set(batch) <= {parameter.name for parameter in parameters}


def _device_of(module: nn.Module) -> torch.device:
    parameter = next(module.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, np.ndarray):
        return torch.tensor(batch, device=device)
    if isinstance(batch, Mapping):
        return {key: _moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(part, device) for part in batch))
    if isinstance(batch, (tuple, list)):
        return [_moved(part, device) for part in batch]
    return batch
