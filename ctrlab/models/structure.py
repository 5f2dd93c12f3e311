"""What compression did to the layers of a model: all that is needed to build it again without its original."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

Basis = Literal["per_field", "shared"]
Bottleneck = Literal["none", "relu", "prelu"]
#: Precision of the served numbers (see `compression.quantize`); training is in float32 in any case.
Precision = Literal["float32", "int8", "int4"]

#: The only kind of structure that checkpoints hold.
FACTORED = "factored"


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The structure of a compressed model; a checkpoint keeps its JSON.

    ranks: {layer_name: rank} of everything that was factored. bottleneck, basis: as in `plans.configs.CompressionSpec`.
    table_form: how reduced tables are stored, "latents" or a form of a method's own (`plans.methods.Method.table_form`).
    folded: whether the tables' projections are merged into their readers. precision: of the served numbers;
    layer_precisions: {layer_name: precision} of layers that have another.

    >>> structure = Structure(ranks={"mlp.0": 64})
    >>> structure.to_dict()["tables"], Structure.from_dict(structure.to_dict()) == structure
    ('latents', True)
    """

    ranks: Mapping[str, int] = field(default_factory=dict)
    bottleneck: Bottleneck = "none"
    basis: Basis = "per_field"
    table_form: str = "latents"
    folded: bool = False
    precision: Precision = "float32"
    layer_precisions: Mapping[str, Precision] = field(default_factory=dict)

    @property
    def serves_only(self) -> bool:
        """Whether the model is folded or quantised, and can no longer be compressed or trained."""
        return self.folded or quantises(self.precision, self.layer_precisions)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "kind": FACTORED, "ranks": dict(self.ranks), "bottleneck": self.bottleneck, "basis": self.basis,
            "tables": self.table_form, "folded": self.folded, "precision": self.precision,
            "layer_precisions": dict(self.layer_precisions),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, document: Any) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ValueError: something is missing, of another type, or an unknown choice; the message names it.
        """
        if not isinstance(document, Mapping):
            raise ValueError(f"it is no JSON object but {type(document).__name__}")
        if document.get("kind") != FACTORED:
            raise ValueError(f"its kind is {document.get('kind')!r}, and {FACTORED!r} is known")
        document = {"layer_precisions": {}, **document}
        types = {"ranks": Mapping, "bottleneck": str, "basis": str, "tables": str, "folded": bool, "precision": str,
                 "layer_precisions": Mapping}  # fmt: skip
        for name, expected in types.items():
            if not isinstance(document.get(name), expected):
                raise ValueError(f"it has no valid {name!r}")
        for name, choices in (("bottleneck", Bottleneck), ("basis", Basis), ("precision", Precision)):
            if document[name] not in get_args(choices):
                raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {document[name]}")
        ranks = document["ranks"]
        if not all(isinstance(name, str) and type(rank) is int and rank >= 1 for name, rank in ranks.items()):
            raise ValueError("its ranks are not whole numbers from 1 by layer")
        own = document["layer_precisions"]
        if not all(isinstance(name, str) and precision in get_args(Precision) for name, precision in own.items()):
            raise ValueError(f"its layer_precisions are not each one of {', '.join(get_args(Precision))} by layer")
        settings = {name: document[name] for name in ("bottleneck", "basis", "folded", "precision")}
        return cls(ranks=dict(ranks), table_form=document["tables"], layer_precisions=dict(own), **settings)


def quantises(precision: Precision, layer_precisions: Mapping[str, Precision]) -> bool:
    """Whether anything is served in fewer than 32 bits."""
    return any(each != "float32" for each in (precision, *layer_precisions.values()))
