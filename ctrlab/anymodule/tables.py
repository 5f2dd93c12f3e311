"""Tables of any module as latents and a projection, called like `nn.Embedding` and `nn.EmbeddingBag`."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.compression.factors import Compressor
from ctrlab.compression.linear import like_module
from ctrlab.compression.projection import project_rows_
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.models.structure import Bottleneck


class FactoredTable(nn.Module):
    """e = U z_id + mu in place of nn.Embedding; the padding row stays zero.

    Parameters: num_embeddings rank in `weight`, d rank in `projection`, d in `mean`.
    """

    def __init__(self, table: nn.Embedding | nn.EmbeddingBag, rank: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.num_embeddings, table.embedding_dim
        self.padding_idx = table.padding_idx
        self.sparse = table.sparse
        self.scale_grad_by_freq = table.scale_grad_by_freq
        like = table.weight.detach()
        self.weight = nn.Parameter(like.new_zeros(table.num_embeddings, rank))
        self.projection = nn.Parameter(like.new_zeros(table.embedding_dim, rank))
        self.mean = nn.Parameter(like.new_zeros(table.embedding_dim))

    @classmethod
    def unfilled(cls, table: nn.Embedding | nn.EmbeddingBag, rank: int, bottleneck: Bottleneck) -> Self:
        """A module to replace `table`, with no values yet; a table has no bottleneck."""
        return like_module(cls(table, rank), table)

    @torch.no_grad()
    def fill_(self, table: nn.Embedding | nn.EmbeddingBag, compressor: Compressor, spectrum: LayerSpectrum | None) -> None:
        """In place: the latents, the projection and the mean of `table` by a method."""
        factors = compressor.table_factors(table.weight, spectrum, self.weight.shape[1])
        basis, mean = factors.basis, factors.mean
        project_rows_(self.weight, table.weight, factors.encoder, mean)
        self.projection.copy_(basis)
        self.mean.copy_(mean)
        if self.padding_idx is not None:
            self.weight[self.padding_idx] = 0

    @property
    def compression_note(self) -> str:
        return f"reduced to rank {self.weight.shape[1]} already"

    def forward(self, input: Tensor) -> Tensor:
        """Ids (...) -> vectors (..., d)."""
        latents = functional.embedding(
            input, self.weight, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq, sparse=self.sparse
        )
        vectors = latents @ self.projection.T
        if self.padding_idx is None:
            return vectors + self.mean
        return vectors + (input != self.padding_idx).unsqueeze(-1) * self.mean


class FactoredBag(FactoredTable):
    """The sum or mean of a bag's vectors U z_id + mu, in place of nn.EmbeddingBag; zeros for an empty bag."""

    def __init__(self, table: nn.EmbeddingBag, rank: int) -> None:
        super().__init__(table, rank)
        self.mode = table.mode
        self.include_last_offset = table.include_last_offset

    def forward(self, input: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Ids (B, L), or ids of all bags (N,) with the offset of each bag, like nn.EmbeddingBag -> (B, d)."""
        pooled = functional.embedding_bag(
            input, self.weight, offsets, padding_idx=self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq,
            mode=self.mode, sparse=self.sparse, include_last_offset=self.include_last_offset,
        )  # fmt: skip
        sizes = self._sizes(input, offsets).unsqueeze(1)
        times = sizes if self.mode == "sum" else sizes.clamp(max=1)
        vectors: Tensor = pooled @ self.projection.T + times * self.mean
        return vectors

    def _sizes(self, ids: Tensor, offsets: Tensor | None) -> Tensor:
        """The number of rows in each bag (B,), padding not counted."""
        held = torch.ones_like(ids) if self.padding_idx is None else (ids != self.padding_idx).to(ids.dtype)
        if ids.ndim == 2:
            return held.sum(dim=1).to(self.mean.dtype)
        assert offsets is not None
        starts = offsets if not self.include_last_offset else offsets[:-1]
        before = torch.cat([held.new_zeros(1), held.cumsum(0)])
        ends = torch.cat([starts[1:], starts.new_tensor([len(ids)])]) if not self.include_last_offset else offsets[1:]
        return (before[ends] - before[starts]).to(self.mean.dtype)
