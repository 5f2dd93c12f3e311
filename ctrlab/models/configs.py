"""The model registry and every architecture's settings; loads without torch, so the dashboard can draw forms."""

from dataclasses import dataclass

from ctrlab.config import Config, option
from ctrlab.registry import Registry

MODELS: Registry["ModelConfig"] = Registry("model")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """Settings common to every architecture."""

    embed_dim: int = option(16, minimum=1, maximum=512, help="Width d of every embedding vector.")
    mlp_dims: tuple[int, ...] = option(
        (400, 400, 400), minimum=1, maximum=16384, label="MLP widths", help="Hidden layer widths of the MLP, first to last."
    )
    dropout: float = option(0.0, minimum=0.0, maximum=0.9, step=0.05, help="Dropout rate after each hidden layer.")
    batch_norm: bool = option(False, help="Batch normalisation after each hidden linear layer.")
    embedding_init_std: float = option(
        0.01, minimum=0.0, maximum=1.0, advanced=True, help="Standard deviation of the normal embedding initialisation."
    )


@MODELS.register(
    "deepfm",
    builder="ctrlab.models.deepfm:DeepFM",
    title="DeepFM",
    description="A factorization machine and an MLP over the same embeddings, added (Guo et al., 2017).",
)
@dataclass(frozen=True, kw_only=True)
class DeepFMConfig(ModelConfig):
    """DeepFM: first-order term + pairwise inner products + MLP."""


@MODELS.register(
    "dcn",
    builder="ctrlab.models.dcn:DCN",
    title="DCN",
    description="Explicit bounded-degree feature crosses beside an MLP (Wang et al., 2017).",
)
@dataclass(frozen=True, kw_only=True)
class DCNConfig(ModelConfig):
    """Deep & Cross Network."""

    cross_layers: int = option(3, minimum=1, maximum=16, help="Number of cross layers, hence the highest degree is one more.")
