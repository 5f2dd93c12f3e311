"""Folding of self-attention over the fields: queries, keys, values and the residual are linear in each vector."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.compression.latents import LatentMap
from ctrlab.compression.linear import FactoredLinear, bias_or_zeros
from ctrlab.models.base import CTRModel
from ctrlab.models.folding import attention_projections


class FieldwiseLinear(nn.Module):
    """y_f = W U_f z_f + (b + W mu_f): one linear map of all fields' vectors, folded with a basis per field.

    widths: number of latents of each field, in the order of the latents; fields: index of the field of each.
    Parameters: S out + M out, with S the latents that are read.
    """

    latent_index: Tensor
    weight_index: Tensor

    def __init__(self, widths: list[int], fields: list[int], latent_width: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = latent_width, out_features
        self.weight = nn.Parameter(torch.zeros(sum(widths), out_features))
        self.bias = nn.Parameter(torch.zeros(len(widths), out_features))
        # Fields with fewer latents are padded with zeros: element `latent_width` of z and row S of the weights are zero.
        self.register_buffer("latent_index", _padded_index(widths, fields, latent_width), persistent=False)
        self.register_buffer("weight_index", _padded_index(widths, fields, sum(widths)), persistent=False)

    def row_macs(self) -> int:
        """One per weight; padding is not counted."""
        return self.weight.numel()

    def forward(self, latents: Tensor) -> Tensor:
        """(B, S and raw values) -> (B, M, out)."""
        z = functional.pad(latents, (0, 1))[:, self.latent_index]
        weight = functional.pad(self.weight, (0, 0, 0, 1))[self.weight_index]
        return torch.bmm(z.transpose(0, 1), weight).transpose(0, 1) + self.bias


def _padded_index(widths: list[int], fields: list[int], padding: int) -> Tensor:
    """(M, max(widths)): the positions of each field's latents, then `padding`."""
    index = torch.full((len(widths), max(widths)), padding)
    start = 0
    for field, width in zip(fields, widths, strict=True):
        index[field, :width] = torch.arange(start, start + width)
        start += width
    return index


def fold_attention(model: CTRModel, name: str, latent_map: LatentMap) -> None:
    """Every projection absorbs the bases; a factored one in its first factor."""
    for layer_name in attention_projections(model, name):
        layer = model.get_submodule(layer_name)
        if isinstance(layer, FactoredLinear):
            layer.reduce = cast(nn.Linear, _folded(layer.reduce, latent_map))
        else:
            model.set_submodule(layer_name, _folded(cast(nn.Linear, layer), latent_map))


def _folded(linear: nn.Linear, latent_map: LatentMap) -> nn.Module:
    weight = linear.weight.double()
    if latent_map.shared:
        basis = latent_map.blocks[0].basis
        has_bias = cast("Tensor | None", linear.bias) is not None
        narrow = nn.Linear(basis.shape[1], linear.out_features, bias=has_bias).to(linear.weight)
        narrow.weight.copy_(weight @ basis)
        if has_bias:
            narrow.bias.copy_(linear.bias)
        return narrow
    blocks = latent_map.blocks
    widths = [block.basis.shape[1] for block in blocks]
    new = FieldwiseLinear(widths, [block.field for block in blocks], latent_map.latent_width, linear.out_features)
    new = new.to(linear.weight)
    new.weight.copy_(torch.cat([(weight @ block.basis).T for block in blocks]))
    for block in blocks:
        new.bias[block.field] = weight @ block.mean + bias_or_zeros(linear).double()
    return new
