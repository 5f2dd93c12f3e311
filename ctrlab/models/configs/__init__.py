"""Every architecture's settings, in one registry; loads without torch, so the dashboard can draw forms.

A family of architectures to a file; importing this package registers all of them.
"""

# Imported in the order in which they are offered.
# isort: off
from ctrlab.models.configs.base import MODELS, DeepModelConfig, EmbeddingModelConfig, ModelConfig
from ctrlab.models.configs.pairwise import (
    AFNConfig,
    AFNPlusConfig,
    DeepFMConfig,
    DLRMConfig,
    FMConfig,
    LRConfig,
    NFMConfig,
    PNNConfig,
    WideDeepConfig,
)
from ctrlab.models.configs.crossing import DCNConfig, DCNv2Config, GDCNConfig, XDeepFMConfig
from ctrlab.models.configs.attention import AutoIntConfig, AutoIntPlusConfig, FiBiNETConfig, FinalMLPConfig, MaskNetConfig
from ctrlab.models.configs.sequences import BSTConfig, DINConfig, GRU4RecConfig
# isort: on

__all__ = [
    "MODELS",
    "AFNConfig",
    "AFNPlusConfig",
    "AutoIntConfig",
    "AutoIntPlusConfig",
    "BSTConfig",
    "DCNConfig",
    "DCNv2Config",
    "DINConfig",
    "DLRMConfig",
    "DeepFMConfig",
    "DeepModelConfig",
    "EmbeddingModelConfig",
    "FMConfig",
    "FiBiNETConfig",
    "FinalMLPConfig",
    "GDCNConfig",
    "GRU4RecConfig",
    "LRConfig",
    "MaskNetConfig",
    "ModelConfig",
    "NFMConfig",
    "PNNConfig",
    "WideDeepConfig",
    "XDeepFMConfig",
]
