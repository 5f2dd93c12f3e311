"""Folding of linear layers and MLPs that read all vectors side by side: the first layer absorbs the projections."""

from typing import cast

from torch import nn

from ctrlab.compression.latents import LatentMap
from ctrlab.compression.linear import FactoredLinear, linear_like
from ctrlab.models.base import CTRModel
from ctrlab.plans.serving_forms import merges


def fold_mlp(model: CTRModel, name: str, latent_map: LatentMap) -> None:
    """Only the first layer reads the embedding."""
    fold_first_layer(model, f"{name}.0", latent_map)


def fold_first_layer(model: CTRModel, name: str, latent_map: LatentMap) -> None:
    """Fold a linear layer; two factors become one layer where that is no larger."""
    first = model.get_submodule(name)
    if isinstance(first, FactoredLinear):
        model.set_submodule(name, _fold_factored(first, latent_map))
        return
    dense = cast(nn.Linear, first)
    model.set_submodule(name, linear_like(dense, *latent_map.compose(dense.weight, dense.bias)))


def _fold_factored(first: FactoredLinear, latent_map: LatentMap) -> nn.Module:
    weight, bias = latent_map.compose(first.reduce.weight, first.reduce.bias)
    if first.bottleneck == "none" and merges(latent_map.latent_width, first.out_features, first.rank):
        restore = first.restore.weight.double()
        return linear_like(first.reduce, restore @ weight, restore @ bias + first.restore.bias.double())
    first.reduce = linear_like(first.reduce, weight, bias)
    return first
