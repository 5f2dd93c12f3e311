"""A deep copy of any module with other layers in it, also of modules with attributes that `copy.deepcopy` does not copy."""

import copy
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, TypeVar

from torch import Tensor, nn

from ctrlab.errors import CompressionError

M = TypeVar("M", bound=nn.Module)
#: Where a module keeps its hooks.
_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook",
)  # fmt: skip
_NEW_LOCKS: Mapping[type, Any] = {
    type(threading.Lock()): threading.Lock, type(threading.RLock()): threading.RLock, threading.local: threading.local,
}  # fmt: skip
_OPAQUE = (type, FunctionType, BuiltinFunctionType, ModuleType, str, bytes, int, float, complex, bool, type(None))


def copied(module: M, new: Mapping[nn.Module, nn.Module] | None = None) -> M:
    """A deep copy in which `new[layer]` stands wherever `module` refers to `layer`, registered or not.

    The layers that are replaced are not copied; the new ones get copies of their hooks. A tensor with an autograd graph, such as
    a loss that was kept from training, is copied without the graph; a lock is a new, open one.

    Raises:
        CompressionError: an attribute cannot be copied; it is named.
    """
    new = new or {}
    memo: dict[int, Any] = {id(old): replacement for old, replacement in new.items()}
    memo |= {id(value): made for value, made in _substitutes(module, set(memo))}
    try:
        made = copy.deepcopy(module, memo)
        for old, replacement in new.items():
            vars(replacement).update({name: copy.deepcopy(vars(old)[name], memo) for name in _HOOKS})
        return made
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CompressionError(
            f"the module cannot be copied because of {_culprit(module, memo)} ({reason}); set it to None and compress again"
        ) from error


def _substitutes(module: nn.Module, done: set[int]) -> Iterator[tuple[Any, Any]]:
    """(value, copy) of everything that the module refers to and that `copy.deepcopy` refuses to copy."""
    waiting: list[Any] = [module]
    while waiting:
        value = waiting.pop()
        if id(value) in done or isinstance(value, _OPAQUE):
            continue
        done.add(id(value))
        if isinstance(value, Tensor):
            if not value.is_leaf:
                yield value, value.detach().clone()
        elif type(value) in _NEW_LOCKS:
            yield value, _NEW_LOCKS[type(value)]()
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set, frozenset, deque)):
            waiting += value
        else:
            waiting += getattr(value, "__dict__", {}).values()


def _culprit(module: nn.Module, memo: Mapping[int, Any]) -> str:
    """The attribute that cannot be copied, as "its attribute NAME"."""
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if key in ("_parameters", "_buffers", "_modules"):
                continue
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:
                return f"its attribute {f'{name}.{key}' if name else key}"
    return "one of its attributes"
