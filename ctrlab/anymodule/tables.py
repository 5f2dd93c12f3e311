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

    Parameters: num_embeddings rank in `latents`, d rank in `projection`, d in `mean`.
    """

    __jit_unused_properties__ = ("weight", "compression_note")

    def __init__(self, table: nn.Embedding | nn.EmbeddingBag, rank: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.num_embeddings, table.embedding_dim
        self.padding_idx = table.padding_idx
        self.sparse = table.sparse
        self.scale_grad_by_freq = table.scale_grad_by_freq
        like = table.weight.detach()
        self.latents = nn.Parameter(like.new_zeros(table.num_embeddings, rank))
        self.projection = nn.Parameter(like.new_zeros(table.embedding_dim, rank))
        self.mean = nn.Parameter(like.new_zeros(table.embedding_dim))

    @classmethod
    def unfilled(cls, table: nn.Embedding | nn.EmbeddingBag, rank: int, bottleneck: Bottleneck) -> Self:
        """A module to replace `table`, with no values yet; a table has no bottleneck."""
        return like_module(cls(table, rank), table)

    @torch.no_grad()
    def fill_(self, table: nn.Embedding | nn.EmbeddingBag, compressor: Compressor, spectrum: LayerSpectrum | None) -> None:
        """In place: the latents, the projection and the mean of `table` by a method."""
        factors = compressor.table_factors(table.weight, spectrum, self.rank)
        basis, mean = factors.basis, factors.mean
        project_rows_(self.latents, table.weight, factors.encoder, mean)
        self.projection.copy_(basis)
        self.mean.copy_(mean)
        if self.padding_idx is not None:
            self.latents[self.padding_idx] = 0

    @property
    def rank(self) -> int:
        return self.latents.shape[1]

    @property
    def weight(self) -> Tensor:
        """The dense table (num_embeddings, d), for modules that read it; made anew by each reading."""
        rows = self.latents @ self.projection.T
        if self.padding_idx is None:
            return rows + self.mean
        held = torch.arange(self.num_embeddings, device=rows.device) != self.padding_idx
        return rows + held.unsqueeze(1) * self.mean

    @property
    def compression_note(self) -> str:
        return f"reduced to rank {self.rank} already"

    def forward(self, input: Tensor) -> Tensor:
        """Ids (...) -> vectors (..., d)."""
        latents = functional.embedding(
            input, self.latents, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq, sparse=self.sparse
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

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Ids (B, L), or ids of all bags (N,) with the offset of each bag, like nn.EmbeddingBag -> (B, d)."""
        pooled = functional.embedding_bag(
            input, self.latents, offsets, padding_idx=self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq,
            mode=self.mode, sparse=self.sparse, include_last_offset=self.include_last_offset,
            per_sample_weights=per_sample_weights,
        )  # fmt: skip
        sizes = self._sizes(input, offsets, per_sample_weights).unsqueeze(1)
        times = sizes if self.mode == "sum" else sizes.clamp(max=1)
        vectors: Tensor = pooled @ self.projection.T + times * self.mean
        return vectors

    def _sizes(self, ids: Tensor, offsets: Tensor | None, weights: Tensor | None) -> Tensor:
        """The number of rows in each bag (B,), or the sum of their weights; padding not counted."""
        held = torch.ones_like(ids, dtype=self.mean.dtype) if weights is None else weights.to(self.mean.dtype)
        if self.padding_idx is not None:
            held = held * (ids != self.padding_idx)
        if ids.dim() == 2:
            return held.sum(dim=1)
        assert offsets is not None
        bags = offsets if not self.include_last_offset else offsets[:-1]
        place = torch.arange(ids.shape[0], device=ids.device)
        # Bag of each place: the last that begins at or before it; an empty bag begins where the next one does.
        bag = torch.searchsorted(bags, place, right=True) - 1
        return torch.zeros(bags.shape[0], dtype=held.dtype, device=held.device).index_add(0, bag, held)
