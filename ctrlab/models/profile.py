"""What a model costs, and all that an exact prediction of its compressed cost needs. Loads without torch.

Conventions: `parameters` counts the numbers in the module, tables (looked up by id) apart from the dense rest; `bytes` adds the
persistent buffers, as a checkpoint would hold them; `macs` are the multiply-accumulates of one row, see `models.macs`.

In a quantised module (`compression.quantize`) every code counts as one parameter, whatever its width; scales and offsets count
as bytes and not as parameters. So a precision changes bytes alone, and never which form is cheaper.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

LayerKind = Literal["linear", "embedding", "other"]
BlockKind = Literal["fields", "tables", "interaction", "layers", "logit"]


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
        return self._combined(other, 1)

    def __sub__(self, other: "Cost") -> "Cost":
        return self._combined(other, -1)

    def _combined(self, other: "Cost", sign: int) -> "Cost":
        # Field by field: a planner adds a hundred thousand of these.
        return Cost(
            parameters_tables=self.parameters_tables + sign * other.parameters_tables,
            parameters_dense=self.parameters_dense + sign * other.parameters_dense,
            bytes_tables=self.bytes_tables + sign * other.bytes_tables,
            bytes_dense=self.bytes_dense + sign * other.bytes_dense,
            macs=self.macs + sign * other.macs,
        )

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, int]) -> Self:
        return cls(**values)


def cheaper(as_is: Cost, folded: Cost) -> Cost:
    """The cost of the form to serve: the one with fewer MACs, then with fewer parameters; `as_is` if they are equal."""
    return min(as_is, folded, key=lambda cost: (cost.macs, cost.parameters))


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """One layer or table of a model.

    in_features, out_features: of a linear layer; for a table in_features is the number of ids, out_features the width d.
    parameters: weight and bias.
    embedding: for a table, the name of the embedding that owns it.
    positions: how often one row passes through a linear layer: once in an MLP, once per field in self-attention, once per element
        of a list; for a table, the look-ups of one row. Lists count as full.
    fields: of a table outside the embeddings, the number of fields that share it.
    skip_reason: why the layer cannot be compressed; None where it can.
    """

    layer_name: str
    kind: LayerKind
    in_features: int
    out_features: int
    parameters: int
    has_bias: bool = False
    embedding: str = ""
    positions: int = 1
    fields: int = 0
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

    @property
    def module_name(self) -> str:
        """The module that owns the layer: itself, or the embedding of a table."""
        return self.embedding or self.layer_name

    def factored(self, rank: int, activation_parameters: int = 0) -> "tuple[int, int, int]":
        """(table parameters, dense parameters, MACs) of the trainable form at `rank`."""
        if self.kind == "embedding":
            projection = rank * self.out_features
            return self.in_features * rank, projection + self.out_features, self.positions * projection
        products = rank * (self.in_features + self.out_features)
        return 0, products + rank + self.out_features + activation_parameters, self.positions * products


def break_even(in_features: int, out_features: int) -> float:
    """Rank at which two factors (in, k), (k, out) hold as many weights as one (in, out)."""
    return in_features * out_features / (in_features + out_features)


def table_break_even(num_ids: int, width: int) -> float:
    """Rank k at which a latent table with its projection, n k + k d + d, is as large as the table, n d."""
    return (num_ids * width - width) / (num_ids + width)


@dataclass(frozen=True, kw_only=True)
class ReaderProfile:
    """The serving cost of a submodule that reads an embedding, linear in S, the total width of the latents it then reads.

    parameters = parameters_base + parameters_slope S, and macs likewise.
    own: the present cost of the modules that folding replaces, compressible layers not counted.
    first_layers: the linear layers whose input is the embedding; their cost follows from their own ranks.
    by_field: these layers read each field's vector separately, as self-attention does, not all vectors side by side.
    foldable: whether there is a folding rule; without one all numbers above are zero.
    rotation_invariant: it computes inner products only, so in a shared basis it reads the latents unchanged.
    """

    name: str
    own: Cost = field(default_factory=Cost)
    parameters_base: int = 0
    parameters_slope: int = 0
    macs_base: int = 0
    macs_slope: int = 0
    first_layers: tuple[str, ...] = ()
    by_field: bool = False
    foldable: bool = True
    rotation_invariant: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbeddingProfile:
    """One field embedding and how the serving form reads its latents.

    num_vectors: M. num_values: V, the numeric fields; each is one latent in the serving form with a basis per field.
    raw_values: numeric fields have no vectors here.
    list_places: further vectors, looked up for full lists.
    readers: everything that reads it; empty if that is not known, and then nothing folds.
    """

    name: str
    embed_dim: int
    num_vectors: int
    num_values: int
    raw_values: bool
    list_places: int = 0
    readers: tuple[ReaderProfile, ...] = ()

    @property
    def foldable(self) -> bool:
        """Whether every reader has a folding rule."""
        return bool(self.readers) and all(reader.foldable for reader in self.readers)

    def numeric_parameters(self, width: int) -> int:
        """Parameters, and also MACs, of numeric fields' vectors of this width."""
        return 0 if self.raw_values else self.num_values * width

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        readers = tuple(
            ReaderProfile(**{**row, "own": Cost.from_dict(row["own"]), "first_layers": tuple(row["first_layers"])})
            for row in values["readers"]
        )
        return cls(**{**values, "readers": readers})


@dataclass(frozen=True, kw_only=True)
class BlockProfile:
    """A node of a model's diagram: one of its submodules, its input fields, or its output.

    name: qualified name of the submodule, or "fields" or "logit".
    module: its class; for "fields", the number of each kind.
    sources: names of the blocks whose outputs it reads.
    """

    name: str
    kind: BlockKind
    module: str
    cost: Cost = field(default_factory=Cost)
    sources: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        return cls(**{**values, "cost": Cost.from_dict(values["cost"]), "sources": tuple(values["sources"])})


@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """A model's layers, its cost, and the parts from which `plans.cost_prediction.predict` sums the cost of any plan.

    cost: of the model as it is.
    folded_fixed: cost of everything in the serving form that no plan and no fold changes: no compressible layers, embeddings,
        readers that fold, or normalisations that fold.
    element_bytes: bytes of one parameter.
    compressed: the model is factored or folded already, so costs cannot be predicted from this profile.
    blocks: the diagram's nodes, from the fields to the logit.
    """

    architecture: str
    layers: tuple[LayerProfile, ...]
    cost: Cost
    folded_fixed: Cost
    embeddings: tuple[EmbeddingProfile, ...] = ()
    element_bytes: int = 4
    compressed: bool = False
    blocks: tuple[BlockProfile, ...] = ()

    @property
    def readers(self) -> tuple[ReaderProfile, ...]:
        """The readers of all embeddings."""
        return tuple(reader for embedding in self.embeddings for reader in embedding.readers)

    @cached_property
    def compressible(self) -> tuple[LayerProfile, ...]:
        return tuple(layer for layer in self.layers if layer.compressible)

    @cached_property
    def by_name(self) -> dict[str, LayerProfile]:
        return {layer.layer_name: layer for layer in self.layers}

    def unfolded(self) -> Self:
        """The profile with embeddings that do not fold: the serving form keeps them and their readers unchanged."""
        own = sum((reader.own for reader in self.readers), Cost())
        alone = tuple(replace(embedding, readers=()) for embedding in self.embeddings)
        return replace(self, embeddings=alone, folded_fixed=self.folded_fixed + own)

    def layers_of(self, block: str) -> tuple[LayerProfile, ...]:
        """The layers inside the block of this name."""
        return tuple(layer for layer in self.layers if f"{layer.layer_name}.".startswith(f"{block}."))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        parts = {
            "layers": tuple(LayerProfile(**row) for row in values["layers"]),
            "embeddings": tuple(EmbeddingProfile.from_dict(row) for row in values["embeddings"]),
            "blocks": tuple(BlockProfile.from_dict(row) for row in values["blocks"]),
            "cost": Cost.from_dict(values["cost"]),
            "folded_fixed": Cost.from_dict(values["folded_fixed"]),
        }
        return cls(**{**values, **parts})

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls.from_dict(json.loads(text))
