"""The twins of the interactions that are sums over pairs."""

from torch import Tensor

from ctrlab.engines.fast.context import FastContext
from ctrlab.engines.fast.linear import Operand, plain
from ctrlab.engines.fast.pairs import sum_of_pairs
from ctrlab.engines.fast.tables import LookedUp
from ctrlab.models.layers import InnerProductFM
from ctrlab.models.nfm import BiInteraction


class FastInnerProductFM(InnerProductFM):
    """The twin of `InnerProductFM`."""

    context: FastContext

    def forward(self, embeddings: Tensor | Operand) -> Tensor:
        """(B, M, d) -> (B,)."""
        return _pairs(embeddings, self.context).sum(dim=1)


class FastBiInteraction(BiInteraction):
    """The twin of `BiInteraction`."""

    context: FastContext

    def forward(self, e: Tensor | Operand) -> Tensor:
        """(B, M, d) -> (B, d)."""
        return _pairs(e, self.context)


def _pairs(e: Tensor | Operand, context: FastContext) -> Tensor:
    return e.batch.pairs if isinstance(e, LookedUp) else sum_of_pairs(plain(e), context.parts)
