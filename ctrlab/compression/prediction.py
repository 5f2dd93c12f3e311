"""What a plan will cost and lose: exact, without torch and without a forward pass.

`predict` sums the cost of the model that `compress_model` and `fold` would build; a property test holds the two equal. The
variance lost is exact for method "afm" with bottleneck "none" or "prelu" before fine-tuning, on the calibration rows.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ctrlab.compression.basis import shared_variance_lost
from ctrlab.compression.configs import Basis, Bottleneck, RankPlan
from ctrlab.compression.plan import Spectra, effective_ranks, require_spectra, validate_plan
from ctrlab.errors import CompressionError
from ctrlab.evaluation.profile import Cost, EmbeddingProfile, LayerProfile, ModelProfile, ReaderProfile, break_even, cheaper


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a plan will do to a model.

    cost_original, cost_original_folded: of the uncompressed model, as it is and in its own serving form.
    cost_explicit: of the trainable form, projections of the tables in place.
    cost_folded: of the serving form.
    ranks: the layers that are factored; kept_dense: planned layers whose rank is at or above break-even, hence left dense.
    variance_lost: share of each compressible layer's output variance that is discarded (0 where dense); empty without spectra.
    variance_lost_total: the mean of `variance_lost` over all compressible layers, so that every layer counts alike whatever
    the scale of its outputs; 0 without spectra.
    """

    cost_original: Cost
    cost_original_folded: Cost
    cost_explicit: Cost
    cost_folded: Cost
    ranks: dict[str, int]
    kept_dense: tuple[str, ...]
    variance_lost: dict[str, float]
    variance_lost_total: float

    @property
    def serving_original(self) -> Cost:
        """What the uncompressed model costs to serve, in the cheaper of its two forms."""
        return cheaper(self.cost_original, self.cost_original_folded)

    @property
    def serving(self) -> Cost:
        """What the compressed model costs to serve, in the cheaper of its two forms."""
        return cheaper(self.cost_explicit, self.cost_folded)


def predict(
    profile: ModelProfile,
    spectra: Spectra | None,
    plan: RankPlan,
    bottleneck: Bottleneck = "none",
    basis: Basis = "per_field",
) -> Prediction:
    """Cost and error of `plan` before anything is built.

    In a shared basis the spectra of the tables must have their eigenvectors, and numeric fields' vectors are reduced as well.

    Raises:
        CompressionError: the plan does not fit the model, the model is compressed already, or a planned layer has no spectrum
            though spectra are given.
    """
    if profile.compressed:
        raise CompressionError("the model is compressed already; predict from its original")
    validate_plan(profile, plan)
    ranks = effective_ranks(profile, plan, basis)
    if spectra:
        require_spectra(profile, spectra, list(ranks))
    lost = _variance_lost(profile, spectra, ranks, basis) if spectra else {}
    return Prediction(
        cost_original=profile.cost,
        cost_original_folded=_folded_cost(profile, {}, bottleneck, basis),
        cost_explicit=_explicit_cost(profile, ranks, bottleneck, basis),
        cost_folded=_folded_cost(profile, ranks, bottleneck, basis),
        ranks=ranks,
        kept_dense=tuple(name for name in plan.as_dict() if name not in ranks),
        variance_lost=lost,
        variance_lost_total=sum(lost.values()) / len(lost) if lost else 0.0,
    )


def _variance_lost(profile: ModelProfile, spectra: Spectra, ranks: Mapping[str, int], basis: Basis) -> dict[str, float]:
    """{compressible layer: share of its output variance discarded}."""
    lost = {
        layer.layer_name: spectra[layer.layer_name].variance_lost(ranks[layer.layer_name]) if layer.layer_name in ranks else 0.0
        for layer in profile.compressible
    }
    if basis == "shared":
        for embedding in profile.embeddings:
            tables = _tables_of(profile, embedding, ranks)
            if tables:
                own = [spectra[layer.layer_name] for layer in tables]
                lost |= shared_variance_lost(own, ranks[tables[0].layer_name])
    return lost


def activation_parameters(bottleneck: Bottleneck, rank: int) -> int:
    """Parameters of the nonlinearity between two factors: a slope a direction for prelu, none otherwise."""
    return rank if bottleneck == "prelu" else 0


def _cost(profile: ModelProfile, tables: int, dense: int, macs: int) -> Cost:
    size = profile.element_bytes
    return Cost(
        parameters_tables=tables, parameters_dense=dense, bytes_tables=size * tables, bytes_dense=size * dense, macs=macs
    )  # fmt: skip


def _layer_cost(profile: ModelProfile, layer: LayerProfile, rank: int | None, bottleneck: Bottleneck) -> Cost:
    """Of one layer in the trainable form; `rank` None leaves it dense."""
    if rank is not None:
        return _cost(profile, *layer.factored(rank, activation_parameters(bottleneck, rank)))
    if layer.kind == "embedding":
        return _cost(profile, layer.parameters, 0, 0)
    return _cost(profile, 0, layer.parameters, layer.positions * layer.in_features * layer.out_features)


def _explicit_cost(profile: ModelProfile, ranks: Mapping[str, int], bottleneck: Bottleneck, basis: Basis) -> Cost:
    cost = profile.cost
    for name, rank in ranks.items():
        layer = profile.by_name[name]
        if layer.kind == "linear":
            cost = cost - _layer_cost(profile, layer, None, bottleneck) + _layer_cost(profile, layer, rank, bottleneck)
    for embedding in profile.embeddings:
        cost += _embedding_cost(profile, embedding, ranks, basis) - _embedding_cost(profile, embedding, {}, basis)
    return cost


def _folded_cost(profile: ModelProfile, ranks: Mapping[str, int], bottleneck: Bottleneck, basis: Basis) -> Cost:
    """fixed part + linear layers + embeddings with their readers."""
    cost = profile.folded_fixed
    read: set[str] = set()
    for embedding in profile.embeddings:
        if basis == "shared" and embedding.readers and _tables_of(profile, embedding, ranks):
            part, first_layers = _shared_fold_cost(profile, embedding, ranks, bottleneck)
        elif embedding.foldable:
            part, first_layers = _per_field_fold_cost(profile, embedding, ranks, bottleneck)
        else:
            part, first_layers = _unfolded_cost(profile, embedding, ranks, basis), set()
        cost, read = cost + part, read | first_layers
    for layer in profile.layers:
        if layer.kind == "linear" and layer.compressible and layer.layer_name not in read:
            cost += _layer_cost(profile, layer, ranks.get(layer.layer_name), bottleneck)
    return cost


def _tables_of(profile: ModelProfile, embedding: EmbeddingProfile, ranks: Mapping[str, int]) -> list[LayerProfile]:
    """The tables of `embedding` that are reduced."""
    return [layer for layer in profile.layers if layer.embedding == embedding.name and layer.layer_name in ranks]


def _per_field_fold_cost(
    profile: ModelProfile, embedding: EmbeddingProfile, ranks: Mapping[str, int], bottleneck: Bottleneck
) -> tuple[Cost, set[str]]:
    """Latent tables and readers of S latents (see ReaderProfile), and the linear layers counted among the readers."""
    tables = [layer for layer in profile.layers if layer.embedding == embedding.name]
    widths = [ranks.get(layer.layer_name, layer.out_features) for layer in tables]
    cost = _cost(profile, sum(layer.in_features * width for layer, width in zip(tables, widths, strict=True)), 0, 0)
    latents = sum(widths) + embedding.num_values
    for reader in embedding.readers:
        cost += _reader_cost(profile, embedding, reader, latents, ranks, bottleneck)
    return cost, {name for reader in embedding.readers for name in reader.first_layers}


def _shared_fold_cost(
    profile: ModelProfile, embedding: EmbeddingProfile, ranks: Mapping[str, int], bottleneck: Bottleneck
) -> tuple[Cost, set[str]]:
    """Latents of one width for every field. Readers of inner products stay as they are, only narrower; others fold or restore."""
    rank = ranks[_tables_of(profile, embedding, ranks)[0].layer_name]
    ids = sum(layer.in_features for layer in profile.layers if layer.embedding == embedding.name)
    numeric = embedding.numeric_parameters(rank)
    cost = _cost(profile, ids * rank, numeric, numeric)
    latents = embedding.num_vectors * rank + (embedding.num_values if embedding.raw_values else 0)
    read: set[str] = set()
    for reader in embedding.readers:
        if reader.rotation_invariant:
            cost += dataclasses.replace(reader.own, macs=reader.own.macs * rank // embedding.embed_dim)
        elif reader.foldable:
            cost += _reader_cost(profile, embedding, reader, latents, ranks, bottleneck, shared_rank=rank)
            read.update(reader.first_layers)
        else:
            restore = embedding.embed_dim * rank
            cost += reader.own + _cost(profile, 0, restore, embedding.num_vectors * restore)
    return cost, read


def _unfolded_cost(profile: ModelProfile, embedding: EmbeddingProfile, ranks: Mapping[str, int], basis: Basis) -> Cost:
    """The embedding as in the trainable form, and what its readers would have replaced."""
    cost = _embedding_cost(profile, embedding, ranks, basis)
    return sum((reader.own for reader in embedding.readers), cost)


def _embedding_cost(profile: ModelProfile, embedding: EmbeddingProfile, ranks: Mapping[str, int], basis: Basis) -> Cost:
    """An embedding in the trainable form."""
    tables = [layer for layer in profile.layers if layer.embedding == embedding.name]
    reduced = _tables_of(profile, embedding, ranks)
    if basis == "shared" and reduced:
        rank = ranks[reduced[0].layer_name]
        numeric, restore = embedding.numeric_parameters(rank), embedding.embed_dim * rank
        ids = sum(layer.in_features for layer in tables)
        return _cost(profile, ids * rank, numeric + restore, numeric + (embedding.num_vectors + embedding.list_places) * restore)
    numeric = embedding.numeric_parameters(embedding.embed_dim)
    parts = (_layer_cost(profile, layer, ranks.get(layer.layer_name), "none") for layer in tables)
    return sum(parts, _cost(profile, 0, numeric, numeric))


def _reader_cost(
    profile: ModelProfile, embedding: EmbeddingProfile, reader: ReaderProfile, latents: int, ranks: Mapping[str, int],
    bottleneck: Bottleneck, *, shared_rank: int | None = None,
) -> Cost:  # fmt: skip
    """A folded reader of `latents` numbers; `shared_rank` where they are one width for all fields."""
    dense = reader.parameters_base + reader.parameters_slope * latents
    macs = reader.macs_base + reader.macs_slope * latents
    cost = _cost(profile, 0, dense, macs)
    for name in reader.first_layers:
        layer, rank = profile.by_name[name], ranks.get(name)
        if reader.by_field:
            vectors = latents - (embedding.num_values if embedding.raw_values else 0)
            cost += _fieldwise_cost(profile, layer, rank, bottleneck, vectors, shared_rank)
        else:
            cost += _side_by_side_cost(profile, layer, rank, bottleneck, latents)
    return cost


def _side_by_side_cost(
    profile: ModelProfile, layer: LayerProfile, rank: int | None, bottleneck: Bottleneck, latents: int
) -> Cost:
    """A linear layer that reads all latents at once; its two factors are multiplied where that is no larger."""
    out = layer.out_features
    if rank is None or (bottleneck == "none" and merges(latents, out, rank)):
        return _cost(profile, 0, latents * out + out, latents * out)
    products = rank * (latents + out)
    return _cost(profile, 0, products + rank + out + activation_parameters(bottleneck, rank), products)


def _fieldwise_cost(
    profile: ModelProfile, layer: LayerProfile, rank: int | None, bottleneck: Bottleneck, latents: int, shared_rank: int | None
) -> Cost:
    """A linear layer that reads every field's latents by themselves: a weight and a bias a field, or one narrower layer."""
    width = rank or layer.out_features
    if shared_rank is not None:
        dense = shared_rank * width + (width if layer.has_bias or rank else 0)
    else:
        dense = latents * width + layer.positions * width
    cost = _cost(profile, 0, dense, latents * width)
    if rank is None:
        return cost
    restore = rank * layer.out_features
    after = restore + layer.out_features + activation_parameters(bottleneck, rank)
    return cost + _cost(profile, 0, after, layer.positions * restore)


def merges(latents: int, out_features: int, rank: int) -> bool:
    """Whether two factors that read `latents` features are better multiplied into one layer in the serving form."""
    return rank >= break_even(latents, out_features)
