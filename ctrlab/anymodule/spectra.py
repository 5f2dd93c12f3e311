"""Spectra of any module from one pass over calibration batches: outputs of linear layers, and how often tables are looked up."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

from ctrlab.anymodule.calls import run
from ctrlab.anymodule.inventory import Filter, Layer, find_layers, openings, unwrapped
from ctrlab.anymodule.unfused import opened
from ctrlab.decomposition.collect import table_moments, weight_singular_values
from ctrlab.decomposition.covariance import Moments, decompose
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.decomposition.trace import evaluating
from ctrlab.errors import SpectrumError


def collect(module: nn.Module, batches: Iterable[Any], filter_fn: Filter | None = None) -> dict[str, LayerSpectrum]:
    """{layer_name: spectrum} of every linear layer and table of `module` that can be compressed and that ran.

    The module runs in evaluation mode and without gradients; its modes, hooks and gradients are left as they were found. While it
    runs, attention and recurrent layers are in open form (`anymodule.opened`): their maps are layers of their own.

    Args:
        module: wrappers of `torch.compile`, DataParallel and DistributedDataParallel are looked through.
        batches: each is what the module takes: a tensor, a tuple of arguments, a dict (see `anymodule.calls.run`).
        filter_fn: filter_fn(name, module) selects layers; by default all.

    Raises:
        SpectrumError: a layer's output is not finite.
    """
    module = unwrapped(module)
    with opened(module, openings(module)) as module:
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
    """Moments of a linear layer's outputs."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.weight: Tensor = layer.module.weight  # type: ignore[assignment]
        self.moments = Moments(layer.out_features, self.weight.device)

    def watch(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        # Nothing is returned: a tensor from a hook would replace the layer's output.
        if not bool(torch.isfinite(output).all()):
            raise SpectrumError(f"layer {self.layer.layer_name} gave numbers that are not finite; look at its weights and inputs")
        self.moments.update(output.detach())

    def spectrum(self) -> LayerSpectrum | None:
        if not self.moments.n:
            return None
        return decompose(self.layer.layer_name, "linear", self.moments, weight_singular_values(self.weight.flatten(1)))


class _TableWatcher:
    """How often each row of a table is looked up; padding does not count, for it stays zero."""

    def __init__(self, layer: Layer) -> None:
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


def _watcher(layer: Layer) -> _LinearWatcher | _TableWatcher:
    makers: dict[str, Callable[[Layer], _LinearWatcher | _TableWatcher]] = {"linear": _LinearWatcher, "embedding": _TableWatcher}
    return makers[layer.kind](layer)
