"""The model registry and the settings that architectures share; loads without torch, so the dashboard can draw forms."""

from dataclasses import dataclass
from typing import Literal

from ctrlab.config import Config, option
from ctrlab.data.schema import FeatureSchema
from ctrlab.registry import ConfigRegistry

MODELS: ConfigRegistry["ModelConfig"] = ConfigRegistry("model")

#: What becomes of a numeric field: a vector scaled by its value, as FuxiCTR does, or the bare number, as DeepCTR does.
NumericFields = Literal["embedding", "raw"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """Base of every architecture's settings."""

    def schema_faults(self, schema: FeatureSchema) -> list[str]:
        """Why the architecture cannot be built for these fields; empty where it can."""
        return []


@dataclass(frozen=True, kw_only=True)
class EmbeddingModelConfig(ModelConfig):
    """Settings of architectures that give every field a vector."""

    embed_dim: int = option(16, minimum=1, maximum=512, help="Width d of every embedding vector.")
    embedding_init_std: float = option(
        0.01, minimum=0.0, maximum=1.0, advanced=True, help="Standard deviation of the normal embedding initialisation."
    )
    numeric_fields: NumericFields = option(
        "embedding",
        advanced=True,
        help="embedding: a numeric field is a vector times its value and takes part in every interaction (FuxiCTR). "
        "raw: its value goes straight into the dense layers (DeepCTR).",
    )


@dataclass(frozen=True, kw_only=True)
class DeepModelConfig(EmbeddingModelConfig):
    """Settings of architectures with an MLP."""

    mlp_dims: tuple[int, ...] = option(
        (400, 400, 400), minimum=1, maximum=16384, label="MLP widths", help="Hidden layer widths of the MLP, first to last."
    )
    dropout: float = option(0.0, minimum=0.0, maximum=0.9, step=0.05, help="Dropout rate after each hidden layer.")
    batch_norm: bool = option(False, help="Batch normalisation after each hidden linear layer.")
