"""Spectra of any module from one pass over calibration batches: moments of linear outputs, look-up counts of tables."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

from ctrlab.anymodule.calls import run
from ctrlab.anymodule.module_layers import Filter, ForeignLayer, find_layers, unfused_forms, unwrapped
from ctrlab.anymodule.unfused import unfused
from ctrlab.decomposition.collect import table_moments, weight_singular_values
from ctrlab.decomposition.covariance import Moments, decompose
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.decomposition.trace import evaluating
from ctrlab.errors import SpectrumError


def collect(module: nn.Module, batches: Iterable[Any], filter_fn: Filter | None = None) -> dict[str, LayerSpectrum]:
    """{layer_name: spectrum} of every compressible linear layer and table of `module` that ran.

    The module runs in evaluation mode and without gradients; its modes, hooks and gradients are unchanged afterwards. Meanwhile
    attention and recurrent layers are unfused (`anymodule.unfused`), so that their maps are layers.

    Args:
        module: any wrapper of `torch.compile`, DataParallel or DistributedDataParallel is removed.
        batches: each is what the module takes: a tensor, a tuple of arguments, or a dict (see `anymodule.calls.run`).
        filter_fn: filter_fn(name, module) selects layers; by default all.

    Raises:
        SpectrumError: a layer's output is not finite.

    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 1))
    >>> found = collect(module, [torch.randn(100, 8)])
    >>> list(found), found["0"].eigenvalues.shape
    (['0'], (6,))
    """
    module = unwrapped(module)
    with unfused(module, unfused_forms(module)) as module:
        return _collect(module, batches, filter_fn)


def _collect(module: nn.Module, batches: Iterable[Any], filter_fn: Filter | None) -> dict[str, LayerSpectrum]:
    layers = [layer for layer in find_layers(module, filter_fn)[0] if layer.skip_reason is None]
    watchers = {layer.layer_name: _watcher(layer) for layer in layers}
    with ExitStack() as stack, evaluating(module), torch.no_grad():
        for layer in layers:
            watcher = watchers[layer.layer_name]
            handle = layer.module.register_forward_hook(watcher.watch, with_kwargs=True)
            stack.callback(handle.remove)
        for batch in batches:
            run(module, batch)
    found = {layer.layer_name: watchers[layer.layer_name].spectrum() for layer in layers}
    return {name: spectrum for name, spectrum in found.items() if spectrum is not None}


class _LinearWatcher:
    """A forward hook that accumulates moments of a linear layer's outputs."""

    def __init__(self, layer: ForeignLayer) -> None:
        self.layer = layer
        self.weight: Tensor = layer.module.weight  # type: ignore[assignment]
        self.moments = Moments(layer.out_features, self.weight.device)

    def watch(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        # Returns nothing: a hook's return value would replace the layer's output.
        if not bool(torch.isfinite(output).all()):
            raise SpectrumError(f"layer {self.layer.layer_name} gave numbers that are not finite; look at its weights and inputs")
        self.moments.update(output.detach())

    def spectrum(self) -> LayerSpectrum | None:
        if not self.moments.n:
            return None
        return decompose(self.layer.layer_name, "linear", self.moments, weight_singular_values(self.weight.flatten(1)))


class _TableWatcher:
    """A forward hook that counts the look-ups of each row of a table; the padding row, which is zero, does not count."""

    def __init__(self, layer: ForeignLayer) -> None:
        self.layer = layer
        self.table = cast("nn.Embedding | nn.EmbeddingBag", layer.module)
        self.counts = torch.zeros(layer.in_features, dtype=torch.int64, device=self.table.weight.device)
        self.weighted = False

    def watch(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        ids: Tensor = kwargs["input"] if "input" in kwargs else args[0]
        self.weighted |= kwargs.get("per_sample_weights") is not None or len(args) > 2
        self.counts += torch.bincount(ids.flatten().long(), minlength=len(self.counts))

    def spectrum(self) -> LayerSpectrum | None:
        if self.table.padding_idx is not None:
            self.counts[self.table.padding_idx] = 0
        if self.weighted or not bool(self.counts.any()):
            return None
        weight = self.table.weight.detach()
        return decompose(self.layer.layer_name, "embedding", table_moments(weight, self.counts), weight_singular_values(weight))


def _watcher(layer: ForeignLayer) -> _LinearWatcher | _TableWatcher:
    return _LinearWatcher(layer) if layer.kind == "linear" else _TableWatcher(layer)
