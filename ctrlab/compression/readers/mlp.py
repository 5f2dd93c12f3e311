"""An MLP on the vectors side by side: its first layer takes the projections in."""

from typing import cast

from torch import nn

from ctrlab.compression.latents import LatentMap
from ctrlab.compression.linear import FactoredLinear, linear_like
from ctrlab.compression.prediction import merges
from ctrlab.compression.readers.base import fold_rule
from ctrlab.models.base import CTRModel
from ctrlab.models.layers import MLP


@fold_rule(MLP)
def _fold_mlp(model: CTRModel, name: str, latent_map: LatentMap) -> None:
    """Only the first layer reads the embedding. Two factors become one layer where that is no larger."""
    first = cast(nn.Sequential, model.get_submodule(name))[0]
    if isinstance(first, FactoredLinear):
        new: nn.Module = _fold_factored(first, latent_map)
    else:
        dense = cast(nn.Linear, first)
        new = linear_like(dense, *latent_map.compose(dense.weight, dense.bias))
    model.set_submodule(f"{name}.0", new)


def _fold_factored(first: FactoredLinear, latent_map: LatentMap) -> nn.Module:
    weight, bias = latent_map.compose(first.reduce.weight, first.reduce.bias)
    if first.bottleneck == "none" and merges(latent_map.latent_width, first.out_features, first.rank):
        restore = first.restore.weight.double()
        return linear_like(first.reduce, restore @ weight, restore @ bias + first.restore.bias.double())
    first.reduce = linear_like(first.reduce, weight, bias)
    return first
