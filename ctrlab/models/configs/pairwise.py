"""Settings of architectures built on pairs of embedding vectors."""

from dataclasses import dataclass
from typing import Literal

from ctrlab.config import option
from ctrlab.models.configs.base import MODELS, DeepModelConfig, EmbeddingModelConfig, ModelConfig, NumericFields


@MODELS.register(
    "deepfm",
    builder="ctrlab.models.deepfm:DeepFM",
    title="DeepFM",
    description="A factorization machine and an MLP over the same embeddings, added (Guo et al., 2017).",
)
@dataclass(frozen=True, kw_only=True)
class DeepFMConfig(DeepModelConfig):
    """DeepFM: first-order term + pairwise inner products + MLP."""


@MODELS.register(
    "nfm",
    builder="ctrlab.models.nfm:NFM",
    title="NFM",
    description="Elementwise products of all pairs, pooled to one vector, below an MLP (He and Chua, 2017).",
)
@dataclass(frozen=True, kw_only=True)
class NFMConfig(DeepModelConfig):
    """Neural Factorization Machine."""


@MODELS.register(
    "afn",
    builder="ctrlab.models.afn:AFN",
    title="AFN",
    description="Products of fields to learned powers, by logarithms, below an MLP (Cheng et al., 2020).",
)
@dataclass(frozen=True, kw_only=True)
class AFNConfig(DeepModelConfig):
    """Adaptive Factorization Network; MLP widths and dropout are of the MLP over the logarithmic neurons."""

    logarithmic_neurons: int = option(1000, minimum=1, maximum=16384, help="Products of fields that are learned.")
    mlp_dims: tuple[int, ...] = option(
        (400,), minimum=1, maximum=16384, label="MLP widths", help="Hidden layer widths of the MLP, first to last."
    )


@MODELS.register(
    "afn_plus",
    builder="ctrlab.models.afn:AFNPlus",
    title="AFN+",
    description="AFN and an MLP on embeddings of its own, weighed by two learned numbers (Cheng et al., 2020).",
)
@dataclass(frozen=True, kw_only=True)
class AFNPlusConfig(AFNConfig):
    """AFN ensembled with a deep network."""

    deep_dims: tuple[int, ...] = option(
        (400, 400, 400), minimum=1, maximum=16384, label="DNN widths", help="Hidden layer widths of the separate network."
    )
    deep_dropout: float = option(
        0.0, minimum=0.0, maximum=0.9, step=0.05, label="DNN dropout", help="Dropout rate after each of its hidden layers."
    )


@MODELS.register(
    "lr",
    builder="ctrlab.models.lr:LR",
    title="Logistic regression",
    description="One weight an id; the baseline that has nothing to compress.",
)
@dataclass(frozen=True, kw_only=True)
class LRConfig(ModelConfig):
    """Logistic regression has no settings."""


@MODELS.register(
    "fm",
    builder="ctrlab.models.fm:FM",
    title="FM",
    description="First-order weights and the inner products of all pairs of vectors (Rendle, 2010).",
)
@dataclass(frozen=True, kw_only=True)
class FMConfig(EmbeddingModelConfig):
    """Factorization machine of second order."""


@MODELS.register(
    "wide_deep",
    builder="ctrlab.models.wide_deep:WideDeep",
    title="Wide & Deep",
    description="First-order weights beside an MLP (Cheng et al., 2016).",
)
@dataclass(frozen=True, kw_only=True)
class WideDeepConfig(DeepModelConfig):
    """Wide & Deep."""


@MODELS.register(
    "pnn",
    builder="ctrlab.models.pnn:PNN",
    title="PNN",
    description="Inner or outer products of the vectors join them in the first layer of an MLP (Qu et al., 2016).",
)
@dataclass(frozen=True, kw_only=True)
class PNNConfig(DeepModelConfig):
    """Product-based neural network."""

    product: Literal["inner", "outer"] = option(
        "inner", help="inner: of all pairs (IPNN). outer: of the summed vectors with themselves (OPNN)."
    )

    def faults(self) -> list[str]:
        return [] if self.mlp_dims else ["mlp_dims must name at least one layer: the products are read by the first"]


@MODELS.register(
    "dlrm",
    builder="ctrlab.models.dlrm:build",
    title="DLRM",
    description="Numbers through a bottom MLP, inner products of all pairs, a top MLP over both (Naumov et al., 2019).",
)
@dataclass(frozen=True, kw_only=True)
class DLRMConfig(DeepModelConfig):
    """Deep learning recommendation model; MLP widths are those of the top MLP."""

    bottom_dims: tuple[int, ...] = option(
        (64,), minimum=1, maximum=16384, label="Bottom MLP widths", help="Hidden layer widths of the MLP over numeric values."
    )
    numeric_fields: NumericFields = option(
        "raw",
        advanced=True,
        help="raw: all values go through the bottom MLP to one vector (the paper). embedding: a numeric field is a vector "
        "times its value, and there is no bottom MLP.",
    )
