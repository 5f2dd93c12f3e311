"""Settings of architectures built on pairs of embedding vectors."""

from dataclasses import dataclass

from ctrlab.models.configs.base import MODELS, DeepModelConfig


@MODELS.register(
    "deepfm",
    builder="ctrlab.models.deepfm:DeepFM",
    title="DeepFM",
    description="A factorization machine and an MLP over the same embeddings, added (Guo et al., 2017).",
)
@dataclass(frozen=True, kw_only=True)
class DeepFMConfig(DeepModelConfig):
    """DeepFM: first-order term + pairwise inner products + MLP."""
