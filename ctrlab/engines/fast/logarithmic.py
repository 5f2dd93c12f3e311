"""AFN's logarithmic neurons and the linear layer that reads them as one, without the neurons of a whole batch in memory.

With 1,000 neurons and vectors of 16 numbers a row has 16,000 of them, a batch of 4,096 rows 262 MB: every step through them, the
exponential, batch normalisation and their gradients, waited for new memory. Here some neurons are computed at a time, for all
rows, as batch normalisation needs them; they are normalised, multiplied by their columns of the layer's weight, and computed
again in the backward pass.

Shapes: B rows, M vectors a row, d their width, J neurons, C of them at a time, H outputs of the layer.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ctrlab.engines.fast.context import FastContext
from ctrlab.engines.fast.linear import FastLinear, Operand, plain
from ctrlab.models.afn import LogarithmicInteraction


class FastLogarithmicInteraction(LogarithmicInteraction):
    """The twin of `LogarithmicInteraction`. joins: whether the linear layer that reads the neurons takes an `Operand`."""

    context: FastContext
    joins: bool = False

    def forward(self, e: Tensor | Operand) -> Tensor | Operand:  # type: ignore[override]
        """(B, M, d) -> (B, d J)."""
        # With running statistics the compiled backward pass would be another one.
        by_batch = self.exp_norm.training or not torch.is_grad_enabled()
        return Neurons(self, plain(e)) if self.joins and by_batch else super().forward(plain(e))


class Neurons(Operand):
    """The logarithmic neurons of vectors e (B, M, d)."""

    def __init__(self, interaction: FastLogarithmicInteraction, e: Tensor) -> None:
        self.interaction, self.e = interaction, e

    def plain(self) -> Tensor:
        """(B, d J)."""
        return LogarithmicInteraction.forward(self.interaction, self.e)

    def through(self, layer: FastLinear) -> Tensor:
        """(B, H)."""
        own = self.interaction
        return linear_of_neurons(layer, own.logarithms(self.e), own.powers.weight, own.exp_norm)


def linear_of_neurons(layer: FastLinear, logarithms: Tensor, powers: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """The output of `layer` for norm(exp(logarithms powers^T)), the neurons of each of the d places side by side.

    Args:
        layer: of d J inputs. logarithms: (B, d, M). powers: (J, M).
        norm: over the J neurons. Outside of training it takes its running statistics, and there is no gradient.

    Returns:
        (B, H).
    """
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    out: Tensor = _LinearOfNeurons.apply(logarithms, powers, norm.weight, norm.bias, layer.weight, layer.bias, layer, norm)
    return out


class _Statistics(NamedTuple):
    """Of each neuron over the batch."""

    mean: Tensor
    inverse: Tensor


class _LinearOfNeurons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logarithms: Tensor, powers: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None,
                layer: FastLinear, norm: nn.BatchNorm1d) -> Tensor:  # fmt: skip
        rows, places, _ = logarithms.shape
        flat = logarithms.reshape(rows * places, -1)
        statistics = _Statistics(torch.empty_like(scale), torch.empty_like(scale))
        summed = weight.new_zeros(rows, len(weight))
        for own in _neurons(len(powers), places, layer):
            normalised = _normalise_(_made(flat, powers[own], layer), own, scale, shift, norm, statistics)
            read = layer.cast_operand(normalised.view(rows, -1))
            summed += layer.context.products.product("forward neurons", read, layer.cast_operand(_columns(weight, places, own)))
        out = layer.epilogue(summed)
        ctx.save_for_backward(flat, powers, scale, shift, weight, *statistics, out if layer.relu else None)
        ctx.layer, ctx.places, ctx.eps = layer, places, norm.eps
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, powers, scale, shift, weight, mean, inverse, out = ctx.saved_tensors
        layer, places = ctx.layer, ctx.places
        grad = (grad if out is None else torch.ops.aten.threshold_backward(grad, out, 0)).contiguous()
        rows, operand = len(grad), layer.cast_operand(grad)
        of_flat, of_powers, of_weight = torch.zeros_like(flat), torch.empty_like(powers), torch.empty_like(weight)
        of_scale, of_shift = torch.empty_like(scale), torch.empty_like(shift)
        for own in _neurons(len(powers), places, layer):
            neurons = _made(flat, powers[own], layer)
            factor = scale[own] * inverse[own]
            read = layer.cast_operand(torch.addcmul(shift[own] - mean[own] * factor, neurons, factor).view(rows, -1))
            of_columns = layer.context.products.product("weight neurons", operand.t(), read.t(), batch=1)
            of_weight.view(len(weight), places, -1)[:, :, own] = of_columns.view(len(weight), places, -1).to(weight.dtype)
            columns = layer.cast_operand(_columns(weight, places, own))
            of_read = layer.context.products.product("input neurons", operand, columns.t()).float().view(rows * places, -1)
            of_neurons, of_scale[own], of_shift[own] = torch.ops.aten.native_batch_norm_backward(
                of_read, neurons, scale[own], None, None, mean[own], inverse[own], True, ctx.eps, [True, True, True]
            )
            of_exponents = of_neurons.mul_(neurons)
            of_flat += layer.context.products.product("input powers", of_exponents, powers[own].t())
            of_powers[own] = layer.context.products.product("weight powers", of_exponents.t(), flat.t(), batch=1)
        of_bias = grad.sum(0, dtype=weight.dtype) if ctx.needs_input_grad[5] else None
        return of_flat.view(rows, places, -1), of_powers, of_scale, of_shift, of_weight, of_bias, None, None


def _neurons(count: int, places: int, layer: FastLinear) -> Iterator[slice]:
    at_a_time = max(1, layer.context.limits.neuron_width // places)
    for first in range(0, count, at_a_time):
        yield slice(first, min(first + at_a_time, count))


def _made(flat: Tensor, powers: Tensor, layer: FastLinear) -> Tensor:
    """(B d, M) and (C, M) -> (B d, C)."""
    return layer.context.products.product("forward powers", flat, powers).exp_()


def _normalise_(
    neurons: Tensor, own: slice, scale: Tensor, shift: Tensor, norm: nn.BatchNorm1d, statistics: _Statistics
) -> Tensor:
    """(B d, C) -> the same, normalised; the batch's statistics are stored, and added to the running ones."""
    running = (None, None) if norm.running_mean is None or norm.running_var is None else (norm.running_mean, norm.running_var)
    mean, variance = (None if part is None else part[own] for part in running)
    by_batch = norm.training or mean is None
    normalised, of_batch, inverse = torch.native_batch_norm(
        neurons, scale[own], shift[own], mean, variance, by_batch, norm.momentum or 0.0, norm.eps
    )
    if by_batch:
        statistics.mean[own], statistics.inverse[own] = of_batch, inverse
    return normalised


def _columns(weight: Tensor, places: int, own: slice) -> Tensor:
    """Of a weight (H, d J) those of some neurons, (H, d C)."""
    return weight.view(len(weight), places, -1)[:, :, own].reshape(len(weight), -1)
