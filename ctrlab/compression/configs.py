"""What to compress, how, and the compressors' registry; loads without torch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from ctrlab.config import Config, option
from ctrlab.registry import Registry
from ctrlab.training.configs import FitConfig

COMPRESSORS: Registry["MethodConfig"] = Registry("compression method")

BOTTLENECKS = ("none", "relu", "prelu")
ORDERS = ("mlp_first", "tables_first", "joint")
BASES = ("per_field", "shared")
PRECISIONS: tuple["Precision", ...] = ("float32", "int8", "int4")
Basis = Literal["per_field", "shared"]
Bottleneck = Literal["none", "relu", "prelu"]
Order = Literal["mlp_first", "tables_first", "joint"]
#: Of the numbers that are served (see `compression.quantize`); what is trained is float32 in any case.
Precision = Literal["float32", "int8", "int4"]


@dataclass(frozen=True, kw_only=True)
class LayerRank(Config):
    """The rank one layer or table is reduced to."""

    layer_name: str = option(help='Qualified name of a linear layer, or "embedding.<field>".')
    rank: int = option(minimum=1, help="Number of directions kept.")


@dataclass(frozen=True, kw_only=True)
class RankPlan(Config):
    """Which layers are factored, and to what rank; a layer that is absent stays dense."""

    ranks: tuple[LayerRank, ...] = option((), help="One entry per layer that is compressed.")

    def faults(self) -> list[str]:
        twice = [name for name, times in Counter(entry.layer_name for entry in self.ranks).items() if times > 1]
        return [f"layer {name} has more than one rank; give it one" for name in twice]

    @classmethod
    def of(cls, ranks: Mapping[str, int]) -> Self:
        """A plan from {layer_name: rank}."""
        return cls(ranks=tuple(LayerRank(layer_name=name, rank=rank) for name, rank in ranks.items()))

    def as_dict(self) -> dict[str, int]:
        """{layer_name: rank}."""
        return {entry.layer_name: entry.rank for entry in self.ranks}

    def __len__(self) -> int:
        return len(self.ranks)


@dataclass(frozen=True, kw_only=True)
class CompressConfig(Config):
    """One compression run: the plan, the method, and the fine-tuning between its stages."""

    plan: RankPlan = option(help="Ranks by layer; layers left out stay dense.")
    method: str = option("afm", help="How the factors of a layer are found.")
    bottleneck: Bottleneck = option(
        "none",
        label="Nonlinearity in the bottleneck",
        help="Between the two factors of a linear layer. prelu starts as none; relu (the paper) needs fine-tuning.",
    )
    basis: Basis = option(
        "per_field",
        label="Basis of the tables",
        help="per_field: every table keeps its own principal directions. shared: one basis for all fields, which needs no "
        "projection in inner products; all tables get one rank.",
    )
    order: Order = option("mlp_first", help="Which layers are compressed first; each stage is followed by fine-tuning.")
    finetune: FitConfig | None = option(None, help="Fine-tuning after each stage; none truncates only.")
    precision: Precision = option(
        "float32",
        label="Numbers when served",
        help="int8: tables and linear layers in 8 bits. int4: tables in 4 bits, linear layers in 8. With any ranks, or none.",
    )
    max_rows: int | None = option(
        None, minimum=1, advanced=True, help="Calibration rows for spectra collected between stages; all training rows if empty."
    )

    def faults(self) -> list[str]:
        if self.method in COMPRESSORS:
            return []
        return [f"method must be one of {', '.join(COMPRESSORS.names())}, got {self.method}"]


@dataclass(frozen=True, kw_only=True)
class MethodConfig(Config):
    """Base of every compression method's settings."""


@COMPRESSORS.register(
    "afm",
    builder="ctrlab.compression.afm:AFM",
    title="AFM",
    description="Atomic feature mimicking: projects each layer's output on its principal directions, and so keeps what is used.",
)
@dataclass(frozen=True, kw_only=True)
class AFMConfig(MethodConfig):
    """AFM has no settings beyond the plan."""


@COMPRESSORS.register(
    "svd",
    builder="ctrlab.compression.svd:WeightSVD",
    title="SVD of the weights",
    description="Truncates each weight matrix itself, whatever the data; the baseline AFM is measured against.",
)
@dataclass(frozen=True, kw_only=True)
class SVDConfig(MethodConfig):
    """SVD has no settings beyond the plan."""


@COMPRESSORS.register(
    "svd_corrected",
    builder="ctrlab.compression.svd_corrected:CorrectedSVD",
    title="SVD with bias correction",
    description="Truncates the weights, and shifts the bias so that each layer's mean output stays what it was.",
)
@dataclass(frozen=True, kw_only=True)
class CorrectedSVDConfig(MethodConfig):
    """It has no settings beyond the plan."""


@COMPRESSORS.register(
    "whitened_svd",
    builder="ctrlab.compression.whitened:WhitenedSVD",
    title="Input-whitened SVD",
    description="The best low-rank weights for the inputs the data give, with the bias as it was; AFM without its mean.",
)
@dataclass(frozen=True, kw_only=True)
class WhitenedSVDConfig(MethodConfig):
    """It has no settings beyond the plan."""
