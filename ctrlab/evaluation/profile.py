"""What a model costs, and all that an exact prediction of its compressed cost needs. Loads without torch.

Conventions: `parameters` counts the numbers in the module, tables (looked up by id) apart from the dense rest; `bytes` adds the
persistent buffers, as a checkpoint would hold them; `macs` are the multiply-accumulates of one row, see `evaluation.cost`.
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, Self

LayerKind = Literal["linear", "embedding", "other"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Size and arithmetic of a model or of a part of it; costs add and subtract."""

    parameters_tables: int = 0
    parameters_dense: int = 0
    bytes_tables: int = 0
    bytes_dense: int = 0
    macs: int = 0

    @property
    def parameters(self) -> int:
        return self.parameters_tables + self.parameters_dense

    @property
    def size_bytes(self) -> int:
        return self.bytes_tables + self.bytes_dense

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(**{name: value - getattr(other, name) for name, value in vars(self).items()})

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, int]) -> Self:
        return cls(**values)


def cheaper(as_is: Cost, folded: Cost) -> Cost:
    """Of a model's two forms the one to serve: fewer MACs, then fewer parameters; as it is where folding gains nothing."""
    return min(as_is, folded, key=lambda cost: (cost.macs, cost.parameters))


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """One layer as the pages list it.

    in_features, out_features: of a linear layer; for a table in_features is the number of ids, out_features the width d.
    parameters: weight and bias.
    row_uses: how often one row uses the layer, full lists assumed.
    skip_reason: why the layer cannot be compressed; None where it can.
    """

    layer_name: str
    kind: LayerKind
    in_features: int
    out_features: int
    parameters: int
    has_bias: bool = False
    row_uses: int = 1
    skip_reason: str | None = None

    @property
    def compressible(self) -> bool:
        return self.skip_reason is None

    @property
    def break_even(self) -> float:
        """The rank at which a factored form stops being smaller; a layer is factored only strictly below it."""
        if self.kind == "embedding":
            return table_break_even(self.in_features, self.out_features)
        return break_even(self.in_features, self.out_features)

    def factored(self, rank: int, activation_parameters: int = 0) -> "tuple[int, int, int]":
        """(table parameters, dense parameters, MACs) of the trainable form at `rank`."""
        if self.kind == "embedding":
            projection = rank * self.out_features
            return self.in_features * rank, projection + self.out_features, projection * self.row_uses
        products = rank * (self.in_features + self.out_features)
        return 0, products + rank + self.out_features + activation_parameters, products * self.row_uses


def break_even(in_features: int, out_features: int) -> float:
    """Rank at which two factors (in, k), (k, out) hold as many weights as one (in, out)."""
    return in_features * out_features / (in_features + out_features)


def table_break_even(num_ids: int, width: int) -> float:
    """Rank k at which a latent table with its projection, n k + k d + d, is as large as the table, n d."""
    return (num_ids * width - width) / (num_ids + width)


@dataclass(frozen=True, kw_only=True)
class ReaderProfile:
    """The serving cost of a submodule that reads the embedding, linear in S, the total width of the latents it then reads.

    parameters = parameters_base + parameters_slope S, and macs likewise.
    first_layer: the linear layer whose input is the embedding, where that is all that changes; it is costed by its own rank.
    """

    name: str
    parameters_base: int = 0
    parameters_slope: int = 0
    macs_base: int = 0
    macs_slope: int = 0
    first_layer: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """A model's layers, its cost, and the parts from which `compression.plan.predict` sums the cost of any plan.

    cost: of the model as it stands.
    folded_fixed: the part of the serving form that no plan changes (neither a compressible layer nor a reader).
    readers: how the serving form reads the latents; empty where the embedding cannot be folded.
    num_values: numeric fields, each one latent in the serving form.
    element_bytes: of one parameter.
    compressed: the model already is factored or folded, hence predictions start from its original instead.
    """

    architecture: str
    layers: tuple[LayerProfile, ...]
    cost: Cost
    folded_fixed: Cost
    readers: tuple[ReaderProfile, ...] = ()
    num_values: int = 0
    element_bytes: int = 4
    compressed: bool = False

    @property
    def foldable(self) -> bool:
        """Whether every reader of the embedding has a folding rule."""
        return bool(self.readers)

    @cached_property
    def compressible(self) -> tuple[LayerProfile, ...]:
        return tuple(layer for layer in self.layers if layer.compressible)

    @cached_property
    def by_name(self) -> dict[str, LayerProfile]:
        return {layer.layer_name: layer for layer in self.layers}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        parts = {
            "layers": tuple(LayerProfile(**row) for row in values["layers"]),
            "readers": tuple(ReaderProfile(**row) for row in values["readers"]),
            "cost": Cost.from_dict(values["cost"]),
            "folded_fixed": Cost.from_dict(values["folded_fixed"]),
        }
        return cls(**{**values, **parts})

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls.from_dict(json.loads(text))
