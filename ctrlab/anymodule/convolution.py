"""Convolutions, and linear layers with a transposed weight, as two factors: both are affine maps of what they look at."""

from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from ctrlab.compression.factors import Compressor
from ctrlab.compression.linear import FactoredLinear, bottleneck_activation, factor_linear_, factors_of, like_module
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.structure import Bottleneck

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class FactoredConvolution(nn.Module):
    """A convolution to `rank` channels with the kernel of the old one, and one of size 1 to its channels.

    Parameters: rank (in kernel + out) + rank + out, `kernel` being the number of places; a bottleneck of "prelu" adds rank.
    """

    __jit_unused_properties__ = ("weight", "bias", "compression_note")

    def __init__(self, dense: Convolution, rank: int, bottleneck: Bottleneck = "none") -> None:
        super().__init__()
        kind: Any = next(base for base in CONVOLUTIONS if isinstance(dense, base))
        self.bottleneck = bottleneck
        self.reduce = kind(
            dense.in_channels, rank, dense.kernel_size, dense.stride, dense.padding, dense.dilation,
            padding_mode=dense.padding_mode,
        )  # fmt: skip
        self.activation = nn.PReLU(rank, init=1.0) if bottleneck == "prelu" else bottleneck_activation(bottleneck, rank)
        self.restore = kind(rank, dense.out_channels, 1)

    @classmethod
    def unfilled(cls, dense: Convolution, rank: int, bottleneck: Bottleneck) -> Self:
        """A module to replace `dense`, whose factors have no values yet."""
        with torch.random.fork_rng(devices=[]):  # the initial values are overwritten
            return like_module(cls(dense, rank, bottleneck), dense)

    @torch.no_grad()
    def fill_(self, dense: Any, compressor: Compressor, spectrum: LayerSpectrum | None) -> None:
        """In place: the factors of `dense` by a method."""
        factors = factors_of(dense, compressor, spectrum, self.rank)
        self.reduce.weight.copy_(factors.reduce_weight.view_as(self.reduce.weight))
        self.reduce.bias.copy_(factors.reduce_bias)
        self.restore.weight.copy_(factors.restore_weight.view_as(self.restore.weight))
        self.restore.bias.copy_(factors.restore_bias)

    @property
    def rank(self) -> int:
        return int(self.reduce.out_channels)

    @property
    def weight(self) -> Tensor:
        """The dense kernel (out, in, places...) that the two factors make up; a bottleneck is not in it."""
        kernel: Tensor = self.reduce.weight
        restore: Tensor = self.restore.weight
        return (restore.flatten(1) @ kernel.flatten(1)).view(len(restore), *kernel.shape[1:])

    @property
    def bias(self) -> Tensor:
        """The bias (out,) of the dense convolution."""
        bias: Tensor = self.restore.weight.flatten(1) @ self.reduce.bias + self.restore.bias
        return bias

    @property
    def compression_note(self) -> str:
        return f"factored to rank {self.rank} already"

    def forward(self, input: Tensor) -> Tensor:
        """(N, in, places...) -> (N, out, places...)."""
        y: Tensor = self.restore(self.activation(self.reduce(input)))
        return y


class FactoredTransposed(FactoredLinear):
    """Two factors in place of a linear layer that keeps its weight as (in, out), such as `Conv1D` of Hugging Face's GPT-2."""

    @classmethod
    def unfilled(cls, dense: Any, rank: int, bottleneck: Bottleneck) -> Self:
        """A module to replace `dense`, whose factors have no values yet."""
        with torch.random.fork_rng(devices=[]):
            return like_module(cls(dense.weight.shape[0], rank, dense.weight.shape[1], bottleneck), dense)

    def fill_(self, dense: Any, compressor: Compressor, spectrum: LayerSpectrum | None) -> None:
        """In place: the factors of `dense` by a method."""
        factor_linear_(self, factors_of(as_linear(dense), compressor, spectrum, self.rank))

    @property
    def nf(self) -> int:
        """Output features, by the name that Hugging Face gives them."""
        return self.out_features

    @property
    def weight(self) -> Tensor:
        """The dense weight (in, out) that the two factors make up."""
        return super().weight.T


def is_transposed(part: nn.Module) -> bool:
    """Whether a layer is Hugging Face's `Conv1D`: y = x W + b with W (in, out)."""
    weight = part._parameters.get("weight")
    return (
        type(part).__name__ == "Conv1D" and weight is not None and weight.ndim == 2 and getattr(part, "nf", 0) == weight.shape[1]
    )


def matrix_of(part: nn.Module) -> Tensor:
    """The weight of a linear layer of any kind as a matrix (out, in)."""
    weight = cast(Tensor, part.weight).detach()
    return weight.T if is_transposed(part) else weight.flatten(1)


def as_linear(part: nn.Module) -> nn.Linear:
    """A linear layer that shares the memory of a transposed one."""
    weight, bias = cast(Tensor, part.weight).detach().T, cast("Tensor | None", getattr(part, "bias", None))
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear
