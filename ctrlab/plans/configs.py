"""What is done to a model: ranks by layer, the spec of a compression, and the settings of one run; loads without torch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

from ctrlab.config import Config, option
from ctrlab.models.structure import Basis, Bottleneck, Precision, quantises
from ctrlab.plans.methods import METHODS
from ctrlab.training.configs import FitConfig

Order = Literal["mlp_first", "tables_first", "joint"]
Recovery = Literal["off", "best", "on"]
PlannedBits = Literal["float32", "int8", "int4", "planned"]
Aim = Literal["log_loss", "auc"]
BOTTLENECKS: tuple[Bottleneck, ...] = get_args(Bottleneck)
ORDERS: tuple[Order, ...] = get_args(Order)
BASES: tuple[Basis, ...] = get_args(Basis)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, kw_only=True)
class LayerRank(Config):
    """The rank one layer or table is reduced to."""

    layer_name: str = option(help='Qualified name of a linear layer, or "embedding.<field>".')
    rank: int = option(minimum=1, help="Number of directions kept.")


@dataclass(frozen=True, kw_only=True)
class RankPlan(Config):
    """Which layers are factored, and to what rank; a layer that is absent stays dense.

    >>> plan = RankPlan.of({"mlp.0": 64, "embedding.item": 4})
    >>> plan.as_dict()["mlp.0"], len(plan)
    (64, 2)
    >>> RankPlan.from_json(plan.to_json()) == plan
    True
    """

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
class LayerPrecision(Config):
    """The bits that one layer or table is served in."""

    layer_name: str = option(help='Qualified name of a linear layer, or "embedding.<field>".')
    precision: Precision = option(help="Bits of its numbers; of a linear layer int4 means 8 bits.")


def _method_titles() -> dict[str, str]:
    return {method.name: method.title for method in METHODS}


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
        label="Inner activation",
        choices={"none": "None", "relu": "ReLU (paper)", "prelu": "PReLU"},
        help="Nonlinearity between the two factors of a linear layer. prelu starts as the identity and is learnt while "
        "fine-tuning; with relu, the paper's choice, the predicted variance does not hold before fine-tuning.",
    )
    basis: Basis = option(
        "per_field",
        label="Table basis",
        choices={"per_field": "One per table", "shared": "Shared by all tables"},
        help="per_field: every table has its own principal directions, which lose least. shared: all tables have one basis and "
        "rank, so that inner products need no projection.",
    )
    precision: Precision = option(
        "float32",
        choices={"float32": "32 bits", "int8": "8 bits", "int4": "4 bits (linear layers 8)"},
        help="Bits of the served weights. int8: tables and linear layers in 8 bits. int4: tables in 4 bits, linear layers in 8. "
        "With any ranks, or none.",
    )

    layer_precisions: tuple[LayerPrecision, ...] = option((), help="Bits of single layers where they differ from precision.")

    @property
    def precisions_by_layer(self) -> dict[str, Precision]:
        """{layer_name: precision} of layers with bits of their own."""
        return {entry.layer_name: entry.precision for entry in self.layer_precisions}

    @property
    def quantises(self) -> bool:
        """Whether anything is served in fewer than 32 bits."""
        return quantises(self.precision, self.precisions_by_layer)

    @classmethod
    def of(cls, ranks: Mapping[str, int], **settings: Any) -> Self:
        """A spec from {layer_name: rank} and other settings by name."""
        return cls(plan=RankPlan.of(ranks), **settings)

    def faults(self) -> list[str]:
        if self.method not in METHODS:  # a fault of that field alone
            return []
        if self.basis == "shared" and not METHODS[self.method].keeps_latents:
            title = METHODS[self.method].title
            return [f"{title} has no basis that tables could share; choose per_field, or another method"]
        if self.layer_precisions and (self.basis == "shared" or not METHODS[self.method].keeps_latents):
            return [
                "bits by layer need tables as latents with a basis each; choose per_field and such a method, or one precision"
            ]
        counted = Counter(entry.layer_name for entry in self.layer_precisions)
        return [f"layer {name} has more than one precision; give it one" for name, times in counted.items() if times > 1]


@dataclass(frozen=True, kw_only=True)
class PlanSettings(Config):
    """How a plan is made, whatever it is made for.

    >>> PlanSettings(bits="int8").precisions, PlanSettings().aim
    (('int8',), 'log_loss')
    """

    method: str = option("afm", choices=_method_titles, help="How the factors of a layer will be found; a plan is made for one.")
    bits: PlannedBits = option(
        "float32",
        choices={"float32": "32 bits", "int8": "8 bits", "int4": "4 bits (linear layers 8)", "planned": "Planned with the ranks"},
        help="Bits of the served weights. planned: ranks and bits are chosen together.",
    )
    aim: Aim = option(
        "log_loss",
        choices={"log_loss": "Log loss", "auc": "AUC"},
        help="What a plan loses least of, and what is compared on validation rows where several have the size asked for.",
    )
    multiple_of: int = option(
        1, minimum=1, help="Ranks of linear layers are multiples of this; 8 suits most hardware.", label="Multiple of"
    )

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that all layers may have together."""
        return PRECISIONS if self.bits == "planned" else (self.bits,)


@dataclass(frozen=True, kw_only=True)
class CompressConfig(CompressionSpec):
    """One compression run: what is done to the model, and the fine-tuning between the stages.

    >>> config = CompressConfig(plan=RankPlan.of({"mlp.0": 64}), bottleneck="prelu")
    >>> config.method, config.order, config.finetune
    ('afm', 'mlp_first', None)
    """

    order: Order = option(
        "mlp_first",
        choices={"mlp_first": "MLP first, then tables", "tables_first": "Tables first, then MLP", "joint": "All together"},
        help="Which layers are compressed first; fine-tuning follows each stage.",
    )
    recovery: Recovery = option(
        "off",
        choices={"off": "Off", "best": "Where it helps", "on": "On"},
        advanced=True,
        help="Fits the linear layers of each stage's model again to the original's outputs, in closed form and without labels, "
        "before any fine-tuning. best keeps it where the log loss of the validation rows is lower.",
    )
    finetune: FitConfig | None = option(None, help="Fine-tuning after each stage; without it, only truncation.")
    max_rows: int | None = option(
        None, minimum=1, advanced=True, label="Calibration rows",
        help="Rows for the spectra collected between stages; all training rows if empty.",
    )  # fmt: skip

    @property
    def spec(self) -> CompressionSpec:
        """What is done to the model, without order and fine-tuning."""
        return CompressionSpec(**{field.name: getattr(self, field.name) for field in fields(CompressionSpec)})

    def faults(self) -> list[str]:
        faults = super().faults()
        if self.method in METHODS and self.finetune is None and METHODS[self.method].retrains and self.plan.ranks:
            title = METHODS[self.method].title
            faults.append(f"{title} re-initialises the tables; add fine-tuning of the length of the original's training")
        return faults


#: Nothing is factored, and float32 is served.
UNCOMPRESSED = CompressionSpec()
