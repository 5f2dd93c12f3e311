"""Folding of DCN's cross network and its head: one scalar per layer."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.compression.latents import LatentMap
from ctrlab.models.base import CTRModel
from ctrlab.models.layers import CrossNetwork


class FoldedCross(nn.Module):
    """w_head^T x_L of a cross network from its latents: x_l = alpha_l x_0 + B_l with B_l = sum_{m<l} b_m constant.

    alpha_0 = 1, alpha_{l+1} = alpha_l (1 + w_l^T x_0) + B_l^T w_l; the head gives alpha_L w_head^T x_0 + B_L^T w_head.
    Parameters: (L + 1) S + 2 (L + 1) for L cross layers.
    """

    compression_note = "folded for serving"

    def __init__(self, latent_width: int, num_layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_layers + 1, latent_width))
        self.bias = nn.Parameter(torch.zeros(num_layers + 1))
        self.offsets = nn.Parameter(torch.zeros(num_layers + 1))

    def row_macs(self) -> int:
        return self.weight.numel() + len(self.bias)

    def forward(self, z: Tensor) -> Tensor:
        """(B, S) -> (B, 1), the output of the head."""
        *scalars, head = functional.linear(z, self.weight, self.bias).unbind(dim=1)
        *offsets, head_offset = self.offsets.unbind()
        alpha = torch.ones_like(head)
        for scalar, offset in zip(scalars, offsets, strict=True):
            alpha = alpha + alpha * scalar + offset
        return (alpha * head + head_offset).unsqueeze(1)


def fold_cross(model: CTRModel, name: str, latent_map: LatentMap) -> None:
    """Fold the network together with the head that reads it; nn.Identity replaces the head."""
    cross = cast(CrossNetwork, model.get_submodule(name))
    head = cast(nn.Linear, model.get_submodule(f"{name}_head"))
    vectors = torch.cat([cross.weights, head.weight]).double()
    constants = torch.cat([torch.zeros_like(cross.biases[:1]), cross.biases.cumsum(0)]).double()  # B_0 .. B_L
    offsets = (constants * vectors).sum(dim=1)
    if head.bias is not None:
        offsets[-1] += head.bias.double().squeeze()
    new = FoldedCross(latent_map.latent_width, len(cross.weights)).to(cross.weights)
    weight, bias = latent_map.compose(vectors)
    for parameter, values in zip(new.parameters(), (weight, bias, offsets), strict=True):
        parameter.copy_(values)
    model.set_submodule(name, new)
    model.set_submodule(f"{name}_head", nn.Identity())
