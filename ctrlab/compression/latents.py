"""How a model's readers see the latents of its tables: every field is affine in its latents."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """How one field is read from the latents: e = basis z + mean; float64 basis (d, k) and mean (d,).

    field: its place on the embedding's second axis.
    square: the weight of each |z_i|^2 in |basis z|^2: 1 where the basis is orthonormal.
    """

    field: int
    basis: Tensor
    mean: Tensor
    square: float = 1.0


class LatentMap:
    """x_0 = [e_1, ..., e_M], raw values behind it, as an affine map of the latents z (S,).

    Block-diagonal in the fields, in the latents' own order; raw values are the last latents, unchanged.

    like: a float64 tensor on the device of the blocks, which may be none.
    shared: all blocks have one basis and no mean, so that the latents are (B, M, k) as the vectors were (B, M, d).
    """

    def __init__(self, blocks: list[Block], embed_dim: int, raw_values: int, like: Tensor, *, shared: bool = False) -> None:
        self.blocks = blocks
        self.embed_dim = embed_dim
        self.raw_values = raw_values
        self.latent_width = sum(block.basis.shape[1] for block in blocks) + raw_values
        self.like = like
        self.shared = shared

    def compose(self, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """W (out, M d + raw values), b (out,) that read x_0 -> W' (out, S), b' (out,) that read z."""
        vectors, raw = weight.double().split([len(self.blocks) * self.embed_dim, self.raw_values], dim=1)
        by_field = vectors.unflatten(1, (len(self.blocks), self.embed_dim))
        folded = torch.cat([*(by_field[:, block.field] @ block.basis for block in self.blocks), raw], dim=1)
        constant = sum((by_field[:, block.field] @ block.mean for block in self.blocks), by_field.new_zeros(len(weight)))
        return folded, constant if bias is None else constant + bias.double()

    def total(self) -> tuple[Tensor, Tensor]:
        """sum_f e_f = S z + m: S (d, S), m (d,)."""
        mean = sum((block.mean for block in self.blocks), self.like.new_zeros(self.embed_dim))
        raw = self.like.new_zeros(self.embed_dim, self.raw_values)
        return torch.cat([*(block.basis for block in self.blocks), raw], dim=1), mean

    def square_norms(self) -> tuple[Tensor, Tensor, Tensor]:
        """sum_f |e_f|^2 = sum_i q_i z_i^2 + l^T z + c: q (S,), l (S,), c ()."""
        raw = self.like.new_zeros(self.raw_values)
        squares = torch.cat([*(torch.full_like(block.basis[0], block.square) for block in self.blocks), raw])
        linear = torch.cat([*(2 * block.basis.T @ block.mean for block in self.blocks), raw])
        constant = sum((block.mean.square().sum() for block in self.blocks), self.like.new_zeros(()))
        return squares, linear, constant
