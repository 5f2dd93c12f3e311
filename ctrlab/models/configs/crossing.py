"""Settings of architectures that cross features of ever higher degree explicitly."""

from dataclasses import dataclass

from ctrlab.config import option
from ctrlab.models.configs.base import MODELS, DeepModelConfig


@MODELS.register(
    "dcn",
    builder="ctrlab.models.dcn:DCN",
    title="DCN",
    description="Explicit bounded-degree feature crosses beside an MLP (Wang et al., 2017).",
)
@dataclass(frozen=True, kw_only=True)
class DCNConfig(DeepModelConfig):
    """Deep & Cross Network."""

    cross_layers: int = option(3, minimum=1, maximum=16, help="Number of cross layers, hence the highest degree is one more.")
