"""Inputs of a linear layer that need not lie in memory as a whole."""

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from ctrlab.engines.fast.linear import FastLinear


class Operand:
    """A value that a layer of a twin returns in place of a tensor, for a linear layer that can compute the two as one."""

    def plain(self) -> Tensor:
        """The tensor it stands for."""
        raise NotImplementedError

    def through(self, layer: "FastLinear") -> Tensor:
        """`layer(self.plain())`."""
        raise NotImplementedError


def plain(x: Tensor | Operand) -> Tensor:
    """The tensor itself."""
    return x.plain() if isinstance(x, Operand) else x
