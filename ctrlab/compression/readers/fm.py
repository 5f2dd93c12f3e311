"""Folding of pairwise inner products (FM) into a linear map of the latents and a diagonal quadratic form, for any bases."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.compression.latents import LatentMap
from ctrlab.models.base import CTRModel


class FoldedFM(nn.Module):
    """1/2 (|S z + m|^2 - sum_i (q_i z_i + l_i) z_i - c): exactly the FM of the restored vectors, from the latents z.

    Parameters: (d + 2) S + d + 1.
    """

    compression_note = "folded for serving"

    def __init__(self, latent_width: int, embed_dim: int) -> None:
        super().__init__()
        self.total_weight = nn.Parameter(torch.zeros(embed_dim, latent_width))
        self.total_bias = nn.Parameter(torch.zeros(embed_dim))
        self.square = nn.Parameter(torch.zeros(latent_width))
        self.linear = nn.Parameter(torch.zeros(latent_width))
        self.constant = nn.Parameter(torch.zeros(1))

    def row_macs(self) -> int:
        """The map, the square of the sum, and z q z + l z."""
        return self.total_weight.numel() + len(self.total_bias) + 3 * len(self.square)

    def forward(self, z: Tensor) -> Tensor:
        """(B, S) -> (B,)."""
        total = functional.linear(z, self.total_weight, self.total_bias)
        own = (z * (z * self.square + self.linear)).sum(dim=1)
        return 0.5 * (total.square().sum(dim=1) - own - self.constant)


def fold_fm(model: CTRModel, name: str, latent_map: LatentMap) -> None:
    """The FM becomes a linear map of the latents and a diagonal quadratic form."""
    weight, bias = latent_map.total()
    square, linear, constant = latent_map.square_norms()
    new = FoldedFM(latent_map.latent_width, len(weight)).to(next(model.parameters()))
    for parameter, values in zip(new.parameters(), (weight, bias, square, linear, constant.reshape(1)), strict=True):
        parameter.copy_(values)
    model.set_submodule(name, new)
