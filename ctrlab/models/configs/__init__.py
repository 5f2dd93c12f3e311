"""Every architecture's settings, in one registry; loads without torch, so the dashboard can draw forms.

A family of architectures to a file; importing this package registers all of them.
"""

# Imported in the order in which they are offered.
# isort: off
from ctrlab.models.configs.base import MODELS, DeepModelConfig, EmbeddingModelConfig, ModelConfig
from ctrlab.models.configs.pairwise import DeepFMConfig
from ctrlab.models.configs.crossing import DCNConfig
from ctrlab.models.configs.attention import AutoIntConfig, AutoIntPlusConfig, FiBiNETConfig
from ctrlab.models.configs.sequences import BSTConfig, DINConfig, GRU4RecConfig
# isort: on

__all__ = [
    "MODELS",
    "AutoIntConfig",
    "AutoIntPlusConfig",
    "BSTConfig",
    "DCNConfig",
    "DINConfig",
    "DeepFMConfig",
    "DeepModelConfig",
    "EmbeddingModelConfig",
    "FiBiNETConfig",
    "GRU4RecConfig",
    "ModelConfig",
]
