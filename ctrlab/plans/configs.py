"""What to compress, how, and the compressors' registry; loads without torch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from ctrlab.config import Config, option
from ctrlab.registry import ConfigRegistry
from ctrlab.training.configs import FitConfig

COMPRESSORS: ConfigRegistry["MethodConfig"] = ConfigRegistry("compression method")

BOTTLENECKS = ("none", "relu", "prelu")
ORDERS = ("mlp_first", "tables_first", "joint")
BASES = ("per_field", "shared")
PRECISIONS: tuple["Precision", ...] = ("float32", "int8", "int4")
Basis = Literal["per_field", "shared"]
Bottleneck = Literal["none", "relu", "prelu"]
Order = Literal["mlp_first", "tables_first", "joint"]
#: Of the numbers that are served (see `compression.quantize`); what is trained is float32 in any case.
Precision = Literal["float32", "int8", "int4"]
#: What a reduced table is kept as: latents with a projection (every low-rank method), or what the method of that name makes.
TableForm = Literal["latents", "tensor_train", "rare_ids", "qr_hash"]


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


def _method_titles() -> dict[str, str]:
    return {entry.name: entry.title for entry in COMPRESSORS}


@dataclass(frozen=True, kw_only=True)
class CompressionSpec(Config):
    """What is done to a model: which layers are factored, to what ranks, by which method, and how the result is served.

    >>> spec = CompressionSpec.of({"mlp.0": 64, "embedding.item": 4}, bottleneck="prelu")
    >>> spec.plan.as_dict(), spec.method, spec.precision
    ({'mlp.0': 64, 'embedding.item': 4}, 'afm', 'float32')
    """

    plan: RankPlan = option(RankPlan(), help="Ranks by layer; layers left out stay dense.")
    method: str = option("afm", choices=_method_titles, help="How the factors of a layer are found.")
    bottleneck: Bottleneck = option(
        "none",
        label="Nonlinearity in the bottleneck",
        choices={"none": "Nothing", "relu": "ReLU (the paper)", "prelu": "PReLU"},
        help="Between the two factors of a linear layer. prelu starts as none; relu (the paper) needs fine-tuning.",
    )
    basis: Basis = option(
        "per_field",
        label="Basis of the tables",
        choices={"per_field": "Each its own", "shared": "One for all fields"},
        help="per_field: every table keeps its own principal directions. shared: one basis for all fields, which needs no "
        "projection in inner products; all tables get one rank.",
    )
    precision: Precision = option(
        "float32",
        label="Numbers when served",
        choices={"float32": "32 bits, as trained", "int8": "8 bits", "int4": "4 bits, linear layers 8"},
        help="int8: tables and linear layers in 8 bits. int4: tables in 4 bits, linear layers in 8. With any ranks, or none.",
    )

    @classmethod
    def of(cls, ranks: Mapping[str, int], **settings: Any) -> Self:
        """A spec from {layer_name: rank} and other settings by name."""
        return cls(plan=RankPlan.of(ranks), **settings)

    @property
    def tables(self) -> "TableForm":
        """What the method keeps reduced tables as."""
        return table_form(self.method)

    def faults(self) -> list[str]:
        if self.method not in COMPRESSORS:  # a fault of that field alone
            return []
        if self.basis == "shared" and self.tables != "latents":
            title = COMPRESSORS[self.method].title
            return [f"{title} has no basis that tables could share; choose per_field, or another method"]
        return []


@dataclass(frozen=True, kw_only=True)
class CompressConfig(CompressionSpec):
    """One compression run: what is done to the model, and the fine-tuning between the stages."""

    order: Order = option(
        "mlp_first",
        choices={"mlp_first": "MLP first, then tables", "tables_first": "Tables first, then MLP", "joint": "All at once"},
        help="Which layers are compressed first; each stage is followed by fine-tuning.",
    )
    finetune: FitConfig | None = option(None, help="Fine-tuning after each stage; none truncates only.")
    max_rows: int | None = option(
        None, minimum=1, advanced=True, label="Calibration rows",
        help="For spectra collected between stages; all training rows if empty.",
    )  # fmt: skip

    def faults(self) -> list[str]:
        faults = super().faults()
        if self.method in COMPRESSORS and self.finetune is None and retrains(self.method) and self.plan.ranks:
            title = COMPRESSORS[self.method].title
            faults.append(f"{title} draws tables anew; give fine-tuning, for as long as the original was trained")
        return faults


@dataclass(frozen=True, kw_only=True)
class MethodConfig(Config):
    """Base of every compression method's settings.

    tables: what the method keeps reduced tables as. Linear layers are factored in any case.
    retrains: it throws away what the tables have learnt, so that its result needs a whole training.
    """

    tables: ClassVar[TableForm] = "latents"
    retrains: ClassVar[bool] = False


def table_form(method: str) -> TableForm:
    """What the registered method called `method` keeps reduced tables as."""
    form: TableForm = _config_class(method).tables
    return form


def retrains(method: str) -> bool:
    """Whether the registered method called `method` needs a whole training."""
    return _config_class(method).retrains


def _config_class(method: str) -> type["MethodConfig"]:
    return COMPRESSORS[method].config_class  # type: ignore[return-value]


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


@COMPRESSORS.register(
    "tensor_train",
    builder="ctrlab.compression.tensor_train:TensorTrain",
    title="Tensor-train tables",
    description="Tables as products of three small cores, of the size that the ranks would give; linear layers as AFM does them.",
)
@dataclass(frozen=True, kw_only=True)
class TensorTrainConfig(MethodConfig):
    """It has no settings beyond the plan."""

    tables: ClassVar[TableForm] = "tensor_train"


@COMPRESSORS.register(
    "rare_ids",
    builder="ctrlab.compression.rare_ids:DropRareIds",
    title="Dropping rare ids",
    description="The ids seen least in training share one row, as many as must for the size that the ranks would give; linear "
    "layers as AFM does them.",
)
@dataclass(frozen=True, kw_only=True)
class RareIdsConfig(MethodConfig):
    """It has no settings beyond the plan."""

    tables: ClassVar[TableForm] = "rare_ids"


@COMPRESSORS.register(
    "qr_hash",
    builder="ctrlab.compression.qr_hash:QuotientRemainder",
    title="QR hash (retrains)",
    description="Every id's vector is the product of two rows of small tables, of the size that the ranks would give. They are "
    "drawn anew: train as long as the original was. Linear layers as AFM does them.",
)
@dataclass(frozen=True, kw_only=True)
class QuotientRemainderConfig(MethodConfig):
    """It has no settings beyond the plan."""

    tables: ClassVar[TableForm] = "qr_hash"
    retrains: ClassVar[bool] = True


#: Nothing is factored, and float32 is served.
UNCOMPRESSED = CompressionSpec()
