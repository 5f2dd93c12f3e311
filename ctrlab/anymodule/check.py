"""One batch through the module and through its compressed copy: did every new layer run, and does it compute what it should?"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ctrlab.anymodule.calls import Forward, run, tensors_of
from ctrlab.anymodule.module_layers import ForeignLayer
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.decomposition.trace import evaluating
from ctrlab.errors import CtrlabError

#: Rounding: error of a layer in its own precision, as a share of its outputs' squares.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}
_COARSE_ROUNDING = 1e-2


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What one batch showed.

    faults: {layer_name: reason} of layers whose replacement does not stand for them.
    ran: whether the compressed module ran at all.
    difference: of the outputs, relative: the square root of the sum of squared differences over the sum of squares; None where
        the compressed module has not run, or has no float outputs.
    """

    faults: dict[str, str]
    ran: bool = True
    difference: float | None = None


@dataclass
class _Seen:
    """Calls of one layer in one run of the module, and squares summed over their outputs."""

    calls: int = 0
    error: float = 0.0
    square: float = 0.0
    dtype: torch.dtype = field(default=torch.float32)


class OriginalRun:
    """One run of the module on a batch, with what each of some replacements makes of the same inputs."""

    def __init__(self, module: nn.Module, new: Mapping[ForeignLayer, nn.Module], batch: Any, forward: Forward | None) -> None:
        self.batch, self.forward = batch, forward
        self.seen = {layer.layer_name: _Seen() for layer in new}
        with ExitStack() as stack, evaluating(module), torch.no_grad():
            for layer, replacement in new.items():
                stack.enter_context(evaluating(replacement))
                watch = _comparing(self.seen[layer.layer_name], replacement)
                # First in the row of hooks: hooks of others may change the output.
                stack.callback(layer.module.register_forward_hook(watch, with_kwargs=True, prepend=True).remove)
            self.outputs = tensors_of(run(module, batch, forward))

    def check(self, model: nn.Module, new: Mapping[ForeignLayer, nn.Module], limits: Mapping[str, float]) -> Checked:
        """Run the compressed `model` on the same batch, and compare.

        limits: by layer, the largest squared error that its replacement may make; none for a layer without an entry.
        """
        calls = {layer.layer_name: _Seen() for layer in new}
        with ExitStack() as stack, evaluating(model), torch.no_grad():
            for layer, replacement in new.items():
                stack.callback(replacement.register_forward_hook(_counting(calls[layer.layer_name])).remove)
            try:
                outputs = tensors_of(run(model, self.batch, self.forward))
            except CtrlabError as error:
                reason = f"the module does not run with its replacement: {error}"
                return Checked(faults={layer.layer_name: reason for layer in new}, ran=False)
        found = {name: self._fault(name, calls[name].calls, limits.get(name)) for name in calls}
        faults = {name: reason for name, reason in found.items() if reason is not None}
        return Checked(faults=faults, difference=_difference(self.outputs, outputs))

    def _fault(self, name: str, calls: int, limit: float | None) -> str | None:
        seen = self.seen[name]
        if calls != seen.calls:
            return (
                f"its replacement ran {calls} times where the layer runs {seen.calls} times: the module reaches it in another way"
            )
        if limit is None:
            return None
        limit = 1.05 * limit + _ROUNDING.get(seen.dtype, _COARSE_ROUNDING) * seen.square
        if seen.error <= limit:
            return None
        return f"its replacement differs from it by a squared error of {seen.error:.3g} where at most {limit:.3g} was predicted"


def squared_error_limits(
    new: Mapping[ForeignLayer, nn.Module], spectra: Mapping[str, LayerSpectrum], ranks: Mapping[str, int]
) -> dict[str, float]:
    """{layer_name: squared error summed over all calibration rows}, which no part of these rows exceeds.

    None of a bag, where errors of rows add up before they are squared, nor with a ReLU between the factors.
    """
    return {
        name: spectra[name].discarded(ranks[name]) * spectra[name].num_samples
        for layer, module in new.items()
        if not isinstance(layer.module, nn.EmbeddingBag) and getattr(module, "bottleneck", "none") != "relu"
        for name in (layer.layer_name,)
    }


def _comparing(seen: _Seen, replacement: nn.Module) -> Any:
    def watch(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        # `forward` and not the call: the replacement has the layer's hooks, and they have changed these arguments already.
        error = replacement.forward(*args, **kwargs).double() - output.double()
        seen.calls, seen.dtype = seen.calls + 1, output.dtype
        seen.error += float(error.square().sum())
        seen.square += float(output.double().square().sum())

    return watch


def _counting(seen: _Seen) -> Any:
    def watch(*_: Any) -> None:
        seen.calls += 1

    return watch


def _difference(before: list[Tensor], after: list[Tensor]) -> float | None:
    pairs = [
        (a.double(), b.double()) for a, b in zip(before, after, strict=False) if a.is_floating_point() and a.shape == b.shape
    ]
    square = sum(float(a.square().sum()) for a, _ in pairs)
    if not pairs or square == 0:
        return None
    return float((sum(float((a - b).square().sum()) for a, b in pairs) / square) ** 0.5)
