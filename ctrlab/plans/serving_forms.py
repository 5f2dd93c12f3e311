"""The cost of a model's two serving forms under a choice of ranks: exact sums over its layers, without torch.

The explicit form is the trained one, with the projections of its tables in place; the folded form has them merged into what reads
the tables. `compress_model`, `fold` and `quantize` build models of exactly this cost.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from ctrlab.models.profile import Cost, EmbeddingProfile, LayerProfile, ModelProfile, ReaderProfile, break_even, cheaper
from ctrlab.models.structure import Basis, Bottleneck, Precision
from ctrlab.plans import methods
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.methods import METHODS, Method

#: A linear layer of fewer weights is not quantised: there is nothing to save.
MIN_QUANTIZED_WEIGHTS = 64


def activation_parameters(bottleneck: Bottleneck, rank: int) -> int:
    """Parameters of the nonlinearity between two factors: a slope a direction for prelu, none otherwise."""
    return rank if bottleneck == "prelu" else 0


@dataclass(frozen=True, kw_only=True)
class ServingForms:
    """The forms of one model under one choice of ranks, bottleneck, basis, precision and form of the tables.

    With a basis per field, `explicit()` is a constant and the sum of `summand` over all layers; `folded()` is one with
    `folded_summand` for the tables of a foldable embedding and `reading` for its first layers, see there.
    """

    profile: ModelProfile
    ranks: Mapping[str, int]
    bottleneck: Bottleneck
    basis: Basis
    precision: Precision = "float32"
    method: Method = methods.AFM
    layer_precisions: Mapping[str, Precision] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: ModelProfile, ranks: Mapping[str, int], spec: CompressionSpec) -> Self:
        """With these ranks, and the other settings of `spec`."""
        return cls(
            profile=profile, ranks=ranks, bottleneck=spec.bottleneck, basis=spec.basis, precision=spec.precision,
            method=METHODS[spec.method], layer_precisions=spec.precisions_by_layer,
        )  # fmt: skip

    def explicit(self) -> Cost:
        """Cost of the trained form: each embedding and compressible layer replaced by its reduced form."""
        cost = sum((self._layer(layer) for layer in self._linear_layers()), self.explicit_fixed())
        return sum((self._embedding(embedding) for embedding in self.profile.embeddings), cost)

    def explicit_fixed(self) -> Cost:
        """`explicit()` without its layers and embeddings: what no rank changes."""
        before = dataclasses.replace(self.in_float32(), ranks={})
        layers = sum((before._layer(layer) for layer in self._linear_layers()), Cost())
        embeddings = sum((before._embedding(embedding) for embedding in self.profile.embeddings), Cost())
        return self.profile.cost - layers - embeddings + self._first_order_change()

    def folded_fixed(self) -> Cost:
        """`folded()` without its layers, embeddings and readers: what no rank changes."""
        return self.profile.folded_fixed + self._first_order_change()

    def folded(self) -> Cost:
        """fixed part + linear layers + embeddings with their readers."""
        cost = self.folded_fixed()
        read: set[str] = set()
        for embedding in self.profile.embeddings:
            if self.basis == "shared" and embedding.readers and self._reduced_tables(embedding):
                part, first_layers = self._shared_fold(embedding)
            elif embedding.foldable and (self.method.keeps_latents or not self._reduced_tables(embedding)):
                part, first_layers = self._per_field_fold(embedding)
            else:
                part, first_layers = self._unfolded(embedding), set()
            cost, read = cost + part, read | first_layers
        return sum((self._layer(layer) for layer in self._linear_layers() if layer.layer_name not in read), cost)

    def in_float32(self) -> Self:
        """The same forms with every number in 32 bits."""
        return dataclasses.replace(self, precision="float32", layer_precisions={})

    def bits(self, layer_name: str) -> Precision:
        """The precision of a layer."""
        return self.layer_precisions.get(layer_name, self.precision)

    def cheaper(self) -> Cost:
        """Serving cost, in the cheaper of the two forms."""
        return cheaper(self.explicit(), self.folded())

    def summand(self, layer: LayerProfile) -> Cost:
        """Cost of one layer in `explicit()`."""
        if layer.kind != "embedding":
            return self._layer(layer)
        rank = self.ranks.get(layer.layer_name)
        return self.folded_summand(layer) + (Cost() if rank is None else self._cost(*layer.factored(rank)[1:]))

    def folded_summand(self, table: LayerProfile) -> Cost:
        """Cost of one table in `folded()`, without its readers."""
        width = self.ranks.get(table.layer_name, table.out_features)
        return self._table(table.in_features, width, precision=self.bits(table.layer_name))

    def reading(self, reader: ReaderProfile, layer: LayerProfile, latents: int) -> Cost:
        """Cost of a first layer in `folded()` that reads `latents` numbers, its factors not merged: affine in `latents`."""
        if reader.by_field:
            return self._fieldwise(layer, latents, None)
        return self._read(layer, latents, self.ranks.get(layer.layer_name))

    def reading_slope(self, reader: ReaderProfile) -> Cost:
        """Cost of a reader in `folded()` for each number it reads, without its first layers."""
        return self._cost(reader.parameters_slope, reader.macs_slope)

    def _linear_layers(self) -> list[LayerProfile]:
        return [layer for layer in self.profile.compressible if layer.kind == "linear"]

    def _tables(self, embedding: EmbeddingProfile) -> list[LayerProfile]:
        return [layer for layer in self.profile.layers if layer.embedding == embedding.name]

    def _reduced_tables(self, embedding: EmbeddingProfile) -> list[LayerProfile]:
        return tables_of(self.profile, embedding, self.ranks)

    def _cost(self, dense: int, macs: int) -> Cost:
        """Of parameters outside the tables that no precision changes."""
        return Cost(parameters_dense=dense, bytes_dense=self.profile.element_bytes * dense, macs=macs)

    def _table(self, num_ids: int, width: int, fields: int = 1, *, precision: Precision | None = None) -> Cost:
        size, precision = self.profile.element_bytes * num_ids * width, precision or self.precision
        if precision != "float32":
            size = num_ids * row_bytes(precision, width) + 2 * self.profile.element_bytes * fields * width
        return Cost(parameters_tables=num_ids * width, bytes_tables=size)

    def _linear(
        self, in_features: int, out_features: int, positions: int = 1, *, biases: int | None = None,
        precision: Precision | None = None,
    ) -> Cost:  # fmt: skip
        """`biases`: number of biases; one an output by default. `precision`: that of all layers by default."""
        weights = in_features * out_features
        cost = self._cost(weights + (out_features if biases is None else biases), positions * weights)
        if (precision or self.precision) == "float32" or not quantizes_linear(in_features, out_features):
            return cost
        size = self.profile.element_bytes
        return dataclasses.replace(cost, bytes_dense=cost.bytes_dense - (size - 1) * weights + size * out_features)

    def _first_order_change(self) -> Cost:
        """Change of cost of the tables outside the embeddings at this precision."""
        before = self.in_float32()
        changes = (
            self._table(layer.in_features, layer.out_features, layer.fields)
            - before._table(layer.in_features, layer.out_features)
            for layer in self.profile.layers
            if layer.fields
        )
        return sum(changes, Cost())

    def _factors(self, layer: LayerProfile, in_features: int, rank: int, positions: int = 1) -> Cost:
        activation, bits = self._cost(activation_parameters(self.bottleneck, rank), 0), self.bits(layer.layer_name)
        reduce = self._linear(in_features, rank, positions, precision=bits)
        return reduce + activation + self._linear(rank, layer.out_features, positions, precision=bits)

    def _read(self, layer: LayerProfile, in_features: int, rank: int | None) -> Cost:
        """A linear layer of another number of inputs; dense where `rank` is None."""
        if rank is not None:
            return self._factors(layer, in_features, rank)
        return self._linear(in_features, layer.out_features, precision=self.bits(layer.layer_name))

    def _layer(self, layer: LayerProfile) -> Cost:
        """A linear layer in the trainable form."""
        rank = self.ranks.get(layer.layer_name)
        if rank is not None:
            return self._factors(layer, layer.in_features, rank, layer.positions)
        biases = layer.parameters - layer.in_features * layer.out_features
        bits = self.bits(layer.layer_name)
        return self._linear(layer.in_features, layer.out_features, layer.positions, biases=biases, precision=bits)

    def _embedding(self, embedding: EmbeddingProfile) -> Cost:
        """An embedding in the trainable form."""
        tables, reduced = self._tables(embedding), self._reduced_tables(embedding)
        if self.basis == "shared" and reduced:
            rank = self.ranks[reduced[0].layer_name]
            numeric, restore = embedding.numeric_parameters(rank), embedding.embed_dim * rank
            macs = numeric + (embedding.num_vectors + embedding.list_places) * restore
            return sum((self._table(layer.in_features, rank) for layer in tables), self._cost(numeric + restore, macs))
        numeric = embedding.numeric_parameters(embedding.embed_dim)
        cost = self._cost(numeric, numeric)
        for layer in tables:
            own = self.ranks.get(layer.layer_name)
            cost += self.folded_summand(layer) if own is None else self.reduced_table(layer, own)
        return cost

    def reduced_table(self, layer: LayerProfile, rank: int) -> Cost:
        """A table in the trainable form, in a basis of its own or as something else."""
        shape = self.method.table_shape(layer.in_features, layer.out_features, rank)
        cost = self._cost(shape.dense, layer.positions * shape.macs) + Cost(bytes_tables=shape.index_bytes)
        bits = self.bits(layer.layer_name)
        return sum((self._table(rows, width, precision=bits) for rows, width in shape.tables), cost)

    def _per_field_fold(self, embedding: EmbeddingProfile) -> tuple[Cost, set[str]]:
        """Latent tables and readers of S latents (see ReaderProfile), and the linear layers counted among the readers."""
        tables = self._tables(embedding)
        widths = [self.ranks.get(layer.layer_name, layer.out_features) for layer in tables]
        cost = sum((self.folded_summand(layer) for layer in tables), Cost())
        latents = sum(widths) + embedding.num_values
        for reader in embedding.readers:
            cost += self._reader(embedding, reader, latents)
        return cost, {name for reader in embedding.readers for name in reader.first_layers}

    def _shared_fold(self, embedding: EmbeddingProfile) -> tuple[Cost, set[str]]:
        """Latents of one width for every field. Readers of inner products stay as they are, only narrower; others fold or
        restore."""
        rank = self.ranks[self._reduced_tables(embedding)[0].layer_name]
        numeric = embedding.numeric_parameters(rank)
        cost = sum((self._table(layer.in_features, rank) for layer in self._tables(embedding)), self._cost(numeric, numeric))
        latents = embedding.num_vectors * rank + (embedding.num_values if embedding.raw_values else 0)
        read: set[str] = set()
        for reader in embedding.readers:
            if reader.rotation_invariant:
                cost += dataclasses.replace(reader.own, macs=reader.own.macs * rank // embedding.embed_dim)
            elif reader.foldable:
                cost += self._reader(embedding, reader, latents, shared_rank=rank)
                read.update(reader.first_layers)
            else:
                restore = embedding.embed_dim * rank
                cost += reader.own + self._cost(restore, embedding.num_vectors * restore)
        return cost, read

    def _unfolded(self, embedding: EmbeddingProfile) -> Cost:
        """The embedding as in the trainable form, with its readers unfolded."""
        return sum((reader.own for reader in embedding.readers), self._embedding(embedding))

    def _reader(
        self, embedding: EmbeddingProfile, reader: ReaderProfile, latents: int, *, shared_rank: int | None = None
    ) -> Cost:
        """A folded reader of `latents` numbers; `shared_rank` where they are one width for all fields."""
        dense = reader.parameters_base + reader.parameters_slope * latents
        cost = self._cost(dense, reader.macs_base + reader.macs_slope * latents)
        for name in reader.first_layers:
            layer = self.profile.by_name[name]
            if reader.by_field:
                vectors = latents - (embedding.num_values if embedding.raw_values else 0)
                cost += self._fieldwise(layer, vectors, shared_rank)
            else:
                cost += self._side_by_side(layer, latents)
        return cost

    def _side_by_side(self, layer: LayerProfile, latents: int) -> Cost:
        """A linear layer that reads all latents at once; its two factors are multiplied where that is no larger."""
        rank = self.ranks.get(layer.layer_name)
        merged = rank is not None and self.bottleneck == "none" and merges(latents, layer.out_features, rank)
        return self._read(layer, latents, None if merged else rank)

    def _fieldwise(self, layer: LayerProfile, latents: int, shared_rank: int | None) -> Cost:
        """A linear layer that reads every field's latents by themselves: a weight and a bias a field, or one narrower layer."""
        rank = self.ranks.get(layer.layer_name)
        width = rank or layer.out_features
        if shared_rank is None:
            cost = self._cost((latents + layer.positions) * width, latents * width)
        else:
            biases = width if layer.has_bias or rank is not None else 0
            cost = self._linear(shared_rank, width, latents // shared_rank, biases=biases)
        if rank is None:
            return cost
        activation = self._cost(activation_parameters(self.bottleneck, rank), 0)
        return cost + activation + self._linear(rank, layer.out_features, layer.positions, precision=self.bits(layer.layer_name))


def tables_of(profile: ModelProfile, embedding: EmbeddingProfile, ranks: Mapping[str, int]) -> list[LayerProfile]:
    """The tables of `embedding` that are reduced."""
    return [layer for layer in profile.layers if layer.embedding == embedding.name and layer.layer_name in ranks]


def merges(latents: int, out_features: int, rank: int) -> bool:
    """Whether two factors that read `latents` features are better multiplied into one layer in the serving form."""
    return rank >= break_even(latents, out_features)


def quantizes_linear(in_features: int, out_features: int) -> bool:
    """Whether a linear layer is worth integers; small ones and those of one output or one input stay as they are."""
    return min(in_features, out_features) > 1 and in_features * out_features >= MIN_QUANTIZED_WEIGHTS


def code_bits(precision: Precision, width: int) -> int:
    """Bits of one number of a table; a row of one number is a byte in any case, so it gets all eight."""
    return 4 if precision == "int4" and width > 1 else 8


def row_bytes(precision: Precision, width: int) -> int:
    """Bytes of one row of a quantised table; rows begin on a byte."""
    return -(-width * code_bits(precision, width) // 8)
