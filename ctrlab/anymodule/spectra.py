"""Spectra of any module from one pass over calibration batches: moments of linear outputs, look-up counts of tables."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ctrlab.anymodule.calls import Forward, run
from ctrlab.anymodule.convolution import CONVOLUTIONS, matrix_of
from ctrlab.anymodule.copying import copied
from ctrlab.anymodule.module_layers import Filter, ForeignLayer, find_layers, has_lazy_weights, unfused_forms, unwrapped
from ctrlab.anymodule.unfused import unfused
from ctrlab.decomposition.collect import table_moments, weight_singular_values
from ctrlab.decomposition.covariance import Moments, decompose
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.decomposition.trace import evaluating
from ctrlab.errors import CalibrationWarning, SpectrumError


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a pass over calibration batches gave: the spectra of the layers that ran, and the first batch."""

    spectra: dict[str, LayerSpectrum]
    first_batch: Any


def collect(
    module: nn.Module,
    batches: Iterable[Any],
    filter_fn: Filter | None = None,
    *,
    forward: Forward | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, LayerSpectrum]:
    """{layer_name: spectrum} of every compressible linear layer and table of `module` that ran.

    The module runs in evaluation mode and without gradients; its modes, hooks and gradients are unchanged afterwards. Meanwhile
    attention and recurrent layers are unfused (`anymodule.unfused`), so that their maps are layers.

    Args:
        module: any wrapper of `torch.compile`, DataParallel or DistributedDataParallel is removed.
        batches: each is what the module takes: a tensor, a tuple of arguments, or a dict (see `anymodule.calls.run`).
        filter_fn: filter_fn(name, module) selects layers; by default all.
        forward: forward(module, batch) runs the module on a batch of any other form.
        on_batch: on_batch(number of batches done), after each.

    Raises:
        SpectrumError: there are no batches, a batch is not what the module takes, or a layer's output is not finite.
        CompressionError: the module is TorchScript.

    Warns:
        CalibrationWarning: a layer has more outputs than it saw rows, hence too few directions.

    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 1))
    >>> found = collect(module, [torch.randn(100, 8)])
    >>> list(found), found["0"].eigenvalues.shape
    (['0'], (6,))
    """
    module = unwrapped(module)
    with unfused(module, unfused_forms(module)) as form:
        return calibrate(form, batches, filter_fn, forward, on_batch).spectra


def calibrate(
    module: nn.Module,
    batches: Iterable[Any],
    filter_fn: Filter | None,
    forward: Forward | None,
    on_batch: Callable[[int], None] | None = None,
) -> Calibration:
    """Run the batches through a module with unfused layers. One whose weights have no shape yet is copied first."""
    module = copied(module) if has_lazy_weights(module) else module
    layers = [layer for layer in find_layers(module, filter_fn)[0] if layer.skip_reason is None]
    watchers = {layer.layer_name: _watcher(layer) for layer in layers}
    first, number = None, 0
    with ExitStack() as stack, evaluating(module), torch.no_grad():
        for layer in layers:
            watcher = watchers[layer.layer_name]
            # First in the row of hooks: those of others may change the output, and stay on the new layer.
            handle = layer.module.register_forward_hook(watcher.watch, with_kwargs=True, prepend=True)
            stack.callback(handle.remove)
        for number, batch in enumerate(batches, 1):
            first = batch if number == 1 else first
            run(module, batch, forward)
            if on_batch is not None:
                on_batch(number)
    if not number:
        raise SpectrumError("there are no calibration batches: the iterable is empty, or was used up before")
    found = {layer.layer_name: watchers[layer.layer_name].spectrum() for layer in layers}
    spectra = {name: spectrum for name, spectrum in found.items() if spectrum is not None}
    _warn_of_few_rows(spectra)
    return Calibration(spectra, first)


def _warn_of_few_rows(spectra: Mapping[str, LayerSpectrum]) -> None:
    few = [spectrum for spectrum in spectra.values() if spectrum.num_samples < spectrum.width]
    if few:
        widest = max(few, key=lambda spectrum: spectrum.width)
        rows = f"{widest.num_samples:,} row" + "s" * (widest.num_samples != 1)
        warnings.warn(
            f"layer {widest.layer_name} has {widest.width:,} outputs and saw {rows} of calibration"
            + (f"; so it is with {len(few) - 1} more" if len(few) > 1 else "")
            + f". They span too few directions, and ranks chosen from them are too low: give {10 * widest.width:,} or more",
            CalibrationWarning, stacklevel=4,
        )  # fmt: skip


class _LinearWatcher:
    """A forward hook that accumulates moments of a linear layer's outputs."""

    def __init__(self, layer: ForeignLayer) -> None:
        self.layer = layer
        self.weight = matrix_of(layer.module)
        self.moments = Moments(layer.out_features, self.weight.device)
        self.places = layer.module.weight.ndim - 2 if isinstance(layer.module, CONVOLUTIONS) else 0

    def watch(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        # Returns nothing: a hook's return value would replace the layer's output.
        if not bool(torch.isfinite(output).all()):
            raise SpectrumError(f"layer {self.layer.layer_name} gave numbers that are not finite; look at its weights and inputs")
        # A convolution has its channels before the places of its output.
        self.moments.update(output.detach().movedim(-1 - self.places, -1))

    def spectrum(self) -> LayerSpectrum | None:
        if not self.moments.n:
            return None
        return decompose(self.layer.layer_name, "linear", self.moments, weight_singular_values(self.weight))


class _TableWatcher:
    """A forward hook that counts the look-ups of each row of a table; the padding row, which is zero, does not count."""

    def __init__(self, layer: ForeignLayer) -> None:
        self.layer = layer
        self.table = cast("nn.Embedding | nn.EmbeddingBag", layer.module)
        self.counts = torch.zeros(layer.in_features, dtype=torch.int64, device=self.table.weight.device)

    def watch(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        ids: Tensor = kwargs["input"] if "input" in kwargs else args[0]
        self.counts += torch.bincount(ids.flatten().long(), minlength=len(self.counts))

    def spectrum(self) -> LayerSpectrum | None:
        if self.table.padding_idx is not None:
            self.counts[self.table.padding_idx] = 0
        if not bool(self.counts.any()):
            return None
        weight = self.table.weight.detach()
        return decompose(self.layer.layer_name, "embedding", table_moments(weight, self.counts), weight_singular_values(weight))


def _watcher(layer: ForeignLayer) -> _LinearWatcher | _TableWatcher:
    return _LinearWatcher(layer) if layer.kind == "linear" else _TableWatcher(layer)
