"""Watching layers at work, and leaving the model as it was found."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def trace_outputs(model: nn.Module, layer_names: Iterable[str], consume: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While open, `consume(layer_name, output)` is called each time one of the layers has run."""
    with ExitStack() as stack:
        for name in layer_names:
            handle = model.get_submodule(name).register_forward_hook(_watcher(name, consume))
            stack.callback(handle.remove)
        yield


def _watcher(name: str, consume: Callable[[str, Tensor], None]) -> Callable[[nn.Module, Any, Tensor], None]:
    def watch(module: nn.Module, inputs: Any, output: Tensor) -> None:
        consume(name, output.detach())  # nothing is returned: a tensor from a hook would replace the layer's output

    return watch


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode while open; afterwards each module is back in the mode it was in, also where they differed."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
