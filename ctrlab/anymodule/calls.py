"""Calling a module on batches of any structure: tensors, arrays, tuples, mappings."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctrlab.errors import CtrlabError, SpectrumError

#: forward(module, batch) runs the module on one batch and returns its output.
Forward = Callable[[nn.Module, Any], Any]
_WAY_ON = "give batches that hold exactly what forward takes, without labels, or forward=lambda module, batch: ... that calls it"


def run(module: nn.Module, batch: Any, forward: Forward | None = None) -> Any:
    """The output of `module` on one batch, moved to its device.

    A tensor, an array or a named tuple is the only argument; a tuple or list holds the positional arguments; a mapping holds
    keyword arguments if its keys are names of `forward`'s parameters, otherwise it is the only argument.

    Raises:
        SpectrumError: the batch is not what the module takes, or the module failed on it.
    """
    moved = _moved(batch, _device_of(module))
    if forward is not None:
        return _called(batch, forward, module, moved)
    args, kwargs = _arguments(module, moved)
    _check_arguments(module, batch, args, kwargs)
    return _called(batch, module, *args, **kwargs)


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors in a module's output of any structure, in a fixed order."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    elif hasattr(output, "__dataclass_fields__"):
        output = list(vars(output).values())
    return [tensor for part in output for tensor in tensors_of(part)] if isinstance(output, (list, tuple)) else []


def _called(batch: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except CtrlabError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        message = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
        raise SpectrumError(f"the module failed on a batch ({_described(batch)}): {message}; {_WAY_ON}") from error


def _arguments(module: nn.Module, batch: Any) -> tuple[list[Any], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return ([], dict(batch)) if _are_keywords(module, batch) else ([batch], {})
    if isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields"):
        return list(batch), {}
    return [batch], {}


def _are_keywords(module: nn.Module, batch: Mapping[Any, Any]) -> bool:
    """Whether one of the keys is the name of a parameter of `forward`, or it takes any name."""
    parameters = _parameters(module)
    return any(parameter.kind is parameter.VAR_KEYWORD or name in batch for name, parameter in parameters.items())


def _parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(module.forward).parameters


def _check_arguments(module: nn.Module, batch: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    try:
        inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError as error:
        takes = ", ".join(map(str, _parameters(module).values()))
        extra = [str(key) for key in kwargs if key not in _parameters(module)]
        reason = f"it has no argument {', '.join(extra)}" if extra else str(error)
        raise SpectrumError(
            f"a batch is {_described(batch)}, but forward({takes}) cannot take it: {reason}; {_WAY_ON}"
        ) from error


def _described(batch: Any) -> str:
    """What a batch is, in words: "a tuple of 2 parts: tensor (128, 32), tensor (128,)"."""
    if isinstance(batch, (Tensor, np.ndarray)):
        return f"{'tensor' if isinstance(batch, Tensor) else 'array'} {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        return f"a dict with the keys {', '.join(map(str, batch))}"
    if isinstance(batch, (tuple, list)):
        parts = ", ".join(_described(part) for part in batch[:4]) + (", ..." if len(batch) > 4 else "")
        return f"a {type(batch).__name__} of {len(batch)} parts: {parts}"
    return f"of type {type(batch).__name__}"


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
