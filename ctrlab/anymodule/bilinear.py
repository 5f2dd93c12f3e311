"""A bilinear layer as two factors, computed like those of a linear layer of all products of its two inputs."""

from typing import Self

import torch
from torch import Tensor, nn

from ctrlab.compression.factors import Compressor
from ctrlab.compression.linear import bottleneck_activation, factor_linear_, factors_of, like_module
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.structure import Bottleneck


class FactoredBilinear(nn.Module):
    """y = W2 act(x1^T A x2 + b1) + b2 with A (rank, in1, in2) and W2 (out, rank), in place of nn.Bilinear.

    Parameters: rank (in1 in2 + out) + rank + out; a bottleneck of "prelu" adds rank.
    """

    __jit_unused_properties__ = ("weight", "bias", "compression_note")

    def __init__(self, in1: int, in2: int, rank: int, out: int, bottleneck: Bottleneck = "none") -> None:
        super().__init__()
        self.bottleneck = bottleneck
        self.reduce = nn.Bilinear(in1, in2, rank)
        self.activation = bottleneck_activation(bottleneck, rank)
        self.restore = nn.Linear(rank, out)

    @classmethod
    def unfilled(cls, dense: nn.Bilinear, rank: int, bottleneck: Bottleneck) -> Self:
        """A module to replace `dense`, whose factors have no values yet."""
        with torch.random.fork_rng(devices=[]):  # the initial values are overwritten
            new = cls(dense.in1_features, dense.in2_features, rank, dense.out_features, bottleneck)
        return like_module(new, dense)

    def fill_(self, dense: nn.Bilinear, compressor: Compressor, spectrum: LayerSpectrum | None) -> None:
        """In place: the factors of `dense` by a method."""
        factor_linear_(self, factors_of(dense, compressor, spectrum, self.reduce.out_features))

    @property
    def rank(self) -> int:
        return self.reduce.out_features

    @property
    def weight(self) -> Tensor:
        """The dense weight (out, in1, in2) that the two factors make up; a bottleneck is not in it."""
        return torch.einsum("or,rij->oij", self.restore.weight, self.reduce.weight)

    @property
    def bias(self) -> Tensor:
        """The bias (out,) of the dense layer."""
        return self.restore.weight @ self.reduce.bias + self.restore.bias

    @property
    def compression_note(self) -> str:
        return f"factored to rank {self.reduce.out_features} already"

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """(..., in1), (..., in2) -> (..., out)."""
        y: Tensor = self.restore(self.activation(self.reduce(input1, input2)))
        return y
