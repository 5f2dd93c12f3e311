"""A smaller model of the same architecture: every width scaled by one factor until the parameters fit."""

from dataclasses import fields

import torch

from ctrlab.data.schema import FeatureSchema
from ctrlab.errors import ConfigError
from ctrlab.models.base import build_model
from ctrlab.models.configs import ModelConfig

#: Settings that are widths, of layers or of vectors; whatever else an architecture has stays as it is.
_WIDTH_ENDINGS = ("_dim", "_dims", "_neurons")
_STEPS = 40


def smaller_config(config: ModelConfig, schema: FeatureSchema, max_parameters: int) -> ModelConfig:
    """`config` with its widths scaled down, no further than needed for at most `max_parameters`; as it is where it fits.

    Raises:
        ConfigError: the smallest widths have more parameters; the sentence says how many.
    """
    if num_parameters(config, schema) <= max_parameters:
        return config
    smallest = _scaled(config, 0.0)
    if (least := num_parameters(smallest, schema)) > max_parameters:
        raise ConfigError(
            f"no {type(config).__name__.removesuffix('Config')} has at most {max_parameters:,} parameters on this data; with the "
            f"smallest widths it has {least:,}: ask for that or more"
        )
    low, high, best, too_large = 0.0, 1.0, smallest, config
    for _ in range(_STEPS):
        middle = (low + high) / 2
        candidate = _scaled(config, middle)
        if candidate != best and (candidate == too_large or num_parameters(candidate, schema) > max_parameters):
            high, too_large = middle, candidate
        else:
            low, best = middle, candidate
    return best


def num_parameters(config: ModelConfig, schema: FeatureSchema) -> int:
    """Of the model that `config` describes; nothing is allocated for it."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(config, schema).parameters())


def _scaled(config: ModelConfig, factor: float) -> ModelConfig:
    heads = max((getattr(config, field.name) for field in fields(config) if field.name.endswith("heads")), default=1)
    widths = {field.name: getattr(config, field.name) for field in fields(config) if field.name.endswith(_WIDTH_ENDINGS)}
    return config.replace(
        **{
            name: tuple(_width(one, factor, heads) for one in own) if isinstance(own, tuple) else _width(own, factor, heads)
            for name, own in widths.items()
        }
    )


def _width(width: int, factor: float, heads: int) -> int:
    """Attention and products by heads need widths that these divide."""
    return max(heads, int(width * factor) // heads * heads)
