"""A linear layer as two factors, and the one place where such factors are computed and filled in."""

from typing import Protocol, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from ctrlab.compression.factors import Compressor, LinearFactors
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.folding import first_layer, register_reader
from ctrlab.models.structure import Bottleneck

M = TypeVar("M", bound=nn.Module)


class Factored(Protocol):
    """A layer as a map to `rank` numbers and a linear layer behind it."""

    @property
    def reduce(self) -> nn.Linear | nn.Bilinear:
        """The first factor."""
        ...

    @property
    def restore(self) -> nn.Linear:
        """The second factor."""
        ...


class FeaturePReLU(nn.PReLU):
    """PReLU with one slope per element of the last dimension; torch's has one per element of the second."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., rank) -> (..., rank)."""
        return torch.where(x >= 0, x, self.weight * x)


class FactoredLinear(nn.Module):
    """y = W2 act(W1 x + b1) + b2 with W1 (rank, in) and W2 (out, rank).

    bottleneck: act is the identity ("none"), "relu", or "prelu" with one slope per direction, initially 1, which is the
    identity until fine-tuning changes it.
    Parameters: rank (in + out) + rank + out; "prelu" adds rank.
    """

    __jit_unused_properties__ = ("weight", "bias", "compression_note")

    def __init__(self, in_features: int, rank: int, out_features: int, bottleneck: Bottleneck = "none") -> None:
        super().__init__()
        self.bottleneck = bottleneck
        self.reduce = nn.Linear(in_features, rank)
        self.activation = bottleneck_activation(bottleneck, rank)
        self.restore = nn.Linear(rank, out_features)

    @classmethod
    def unfilled(cls, dense: nn.Linear, rank: int, bottleneck: Bottleneck) -> Self:
        """A module to replace `dense`, whose factors have no values yet."""
        with torch.random.fork_rng(devices=[]):  # the initial values are overwritten
            return like_module(cls(dense.in_features, rank, dense.out_features, bottleneck), dense)

    def fill_(self, dense: nn.Linear, compressor: Compressor, spectrum: LayerSpectrum | None) -> None:
        """In place: the factors of `dense` by a method."""
        factor_linear_(self, factors_of(dense, compressor, spectrum, self.rank))

    @property
    def in_features(self) -> int:
        return self.reduce.in_features

    @property
    def rank(self) -> int:
        return self.reduce.out_features

    @property
    def out_features(self) -> int:
        return self.restore.out_features

    @property
    def weight(self) -> Tensor:
        """The dense weight (out, in) that the two factors make up, for modules that read it; a bottleneck is not in it."""
        return self.restore.weight @ self.reduce.weight

    @property
    def bias(self) -> Tensor:
        """The bias (out,) of the dense layer."""
        return self.restore.weight @ self.reduce.bias + self.restore.bias

    @property
    def compression_note(self) -> str:
        return f"factored to rank {self.rank} already"

    def row_macs(self) -> int:
        """0; its two linear layers count their own."""
        return 0

    def scale_output_(self, scale: Tensor, shift: Tensor) -> None:
        """In place: y <- scale y + shift, like a batch normalisation behind this layer in evaluation mode."""
        scale_output_(self.restore, scale, shift)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        y: Tensor = self.restore(self.activation(self.reduce(input)))
        return y


register_reader(FactoredLinear, first_layer, fold="ctrlab.compression.readers.mlp:fold_first_layer")


def like_module(new: M, old: nn.Module) -> M:
    """`new` with the dtype, device, training mode and `requires_grad` of `old`; a frozen bias stays frozen."""
    weight, bias = cast(Tensor, old.weight), getattr(old, "bias", None)
    new = new.to(weight.device, weight.dtype).train(old.training).requires_grad_(weight.requires_grad)
    if bias is not None and (restore := getattr(new, "restore", None)) is not None:
        restore.bias.requires_grad_(bias.requires_grad)
    return new


@torch.no_grad()
def factors_of(
    layer: nn.Linear | nn.Bilinear, compressor: Compressor, spectrum: LayerSpectrum | None, rank: int
) -> LinearFactors:
    """The factors of rank `rank` by one method, in float64. A bilinear layer is a linear one of all products of its inputs."""
    return compressor.linear_factors(layer.weight.flatten(1).double(), bias_or_zeros(layer).double(), spectrum, rank)


@torch.no_grad()
def factor_linear_(module: Factored, factors: LinearFactors) -> None:
    """In place: fill a factored layer with these factors, in its own dtype and on its own device."""
    module.reduce.weight.copy_(factors.reduce_weight.view_as(module.reduce.weight))
    module.reduce.bias.copy_(factors.reduce_bias)
    set_linear_(module.restore, factors.restore_weight, factors.restore_bias)


def bottleneck_activation(bottleneck: Bottleneck, rank: int) -> nn.Module:
    """The module between the factors."""
    makers = {"none": nn.Identity, "relu": nn.ReLU, "prelu": lambda: FeaturePReLU(rank, init=1.0)}
    return makers[bottleneck]()  # type: ignore[operator, no-any-return]


@torch.no_grad()
def scale_output_(linear: nn.Linear, scale: Tensor, shift: Tensor) -> None:
    """In place: W <- diag(scale) W, b <- scale b + shift, computed in float64."""
    bias = bias_or_zeros(linear).double()
    set_linear_(linear, linear.weight.double() * scale.double().unsqueeze(1), bias * scale.double() + shift.double())


def bias_or_zeros(linear: nn.Linear | nn.Bilinear) -> Tensor:
    """The bias (out,), or zeros where the layer has none."""
    bias = cast("Tensor | None", linear.bias)
    return bias if bias is not None else linear.weight.new_zeros(len(linear.weight))


@torch.no_grad()
def set_linear_(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """In place: set weight (out, in) and bias (out,), in the dtype and on the device of `linear`."""
    linear.weight.copy_(weight)
    if cast("Tensor | None", linear.bias) is None:
        linear.bias = nn.Parameter(torch.empty(linear.out_features, dtype=linear.weight.dtype, device=linear.weight.device))
    linear.bias.copy_(bias)


def linear_like(like: nn.Linear, weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with this weight (out, in) and bias (out,), in the dtype and on the device of `like`."""
    new = nn.Linear(weight.shape[1], weight.shape[0]).to(like.weight)
    set_linear_(new, weight, bias)
    return new
