"""The two forms of a model as sums of what their layers cost in size or arithmetic: exact, without torch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ctrlab.models.profile import Cost, EmbeddingProfile, LayerProfile, ModelProfile, ReaderProfile
from ctrlab.models.structure import Precision
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.form_search import FloatArray, FormSums
from ctrlab.plans.serving_forms import ServingForms

Amount = Callable[[Cost], float]


class LayerOption(NamedTuple):
    """One way to serve a layer: its rank, None for dense, and its bits."""

    rank: int | None
    precision: Precision


Options = Sequence[LayerOption]


def size_forms(
    profile: ModelProfile,
    layers: Sequence[LayerProfile],
    options: Sequence[Options],
    amount: Amount,
    spec: CompressionSpec,
) -> tuple[FormSums, FormSums]:
    """The form as it stands and the folded one, by what `amount` counts; a basis per field.

    A first layer that folding would merge into one is counted here as its two factors. No plan gets cheaper by that, for the
    dense layer costs as little as the merged one and loses less. In integers the slopes are those of a layer that is quantised:
    one that its narrow latents leave with too few weights for that costs a little more.

    Args:
        layers: those with a choice. options: of each.
        spec: its bottleneck and precision.
    """
    return _Sums(profile, layers, options, amount, spec).both()


class _Sums:
    def __init__(
        self,
        profile: ModelProfile,
        layers: Sequence[LayerProfile],
        options: Sequence[Options],
        amount: Amount,
        spec: CompressionSpec,
    ) -> None:
        self.layers, self.options, self.amount = layers, options, amount
        self.dense = ServingForms(
            profile=profile, ranks={}, bottleneck=spec.bottleneck, basis="per_field", precision=spec.precision
        )
        self.embeddings = [embedding for embedding in profile.embeddings if embedding.foldable]
        self.latents = {embedding.name: self._latents(embedding) for embedding in self.embeddings}
        self.first = {name: (embedding, reader) for embedding in self.embeddings for reader in embedding.readers
                      for name in reader.first_layers}  # fmt: skip
        self._known: dict[tuple[str, int, int], dict[LayerOption, tuple[FloatArray, FloatArray]]] = {}
        self._as_is = LayerOption(None, spec.precision)

    def both(self) -> tuple[FormSums, FormSums]:
        """As it stands; folded."""
        tables = [self._table(layer, own) if layer.kind == "embedding" else None
                  for layer, own in zip(self.layers, self.options, strict=True)]  # fmt: skip
        plain = [self._over_dense(layer, own, ServingForms.summand) if table is None else table[0]
                 for layer, own, table in zip(self.layers, self.options, tables, strict=True)]  # fmt: skip
        names = [embedding.name for embedding in self.embeddings]
        nowhere = [np.zeros(len(own)) for own in self.options]
        as_is = FormSums(
            fixed=self.amount(self.dense.explicit()), costs=plain, widths=nowhere, embeddings=[0] * len(plain),
            base_slopes=np.zeros(1), slopes={},
        )  # fmt: skip
        costs, widths, slopes = list(plain), nowhere, {}
        for number, (layer, own) in enumerate(zip(self.layers, self.options, strict=True)):
            if (table := tables[number]) is not None and layer.embedding in names:
                costs[number] = table[1]
                widths[number] = np.array([0.0 if rank is None else rank - layer.out_features for rank, _ in own])
            elif layer.layer_name in self.first:
                costs[number], slopes[number] = self._first(layer, own, names)
        folded = FormSums(
            fixed=self.amount(self.dense.folded()), costs=costs, widths=widths,
            embeddings=[names.index(layer.embedding) if layer.embedding in names else 0 for layer in self.layers],
            base_slopes=np.array([self._base_slope(embedding) for embedding in self.embeddings] or [0.0]), slopes=slopes,
        )  # fmt: skip
        return as_is, folded

    def _latents(self, embedding: EmbeddingProfile) -> int:
        tables = (layer for layer in self.dense.profile.layers if layer.embedding == embedding.name)
        return sum(table.out_features for table in tables) + embedding.num_values

    def _at(self, layer: LayerProfile, option: LayerOption) -> ServingForms:
        ranks = {} if option.rank is None else {layer.layer_name: option.rank}
        return replace(self.dense, ranks=ranks, layer_precisions={layer.layer_name: option.precision})

    def _over_dense(
        self, layer: LayerProfile, options: Options, cost: Callable[[ServingForms, LayerProfile], Cost]
    ) -> FloatArray:
        dense = self.amount(cost(self.dense, layer))
        return np.array([self.amount(cost(self._at(layer, option), layer)) - dense for option in options])

    def _table(self, layer: LayerProfile, options: Options) -> tuple[FloatArray, FloatArray]:
        """Its costs over dense, as it stands and folded; affine in the number of ids, so found once for tables of one width."""
        shape = (layer.embedding, layer.positions, layer.out_features)
        known = self._known.setdefault(shape, {})
        for option in (*options, self._as_is):
            if option not in known:
                known[option] = self._by_ids(layer, option)
        costs = np.array([known[option] for option in (*options, self._as_is)])  # (options, forms, 2)
        amounts = costs[..., 0] + layer.in_features * costs[..., 1]
        over = amounts[:-1] - amounts[-1]
        return over[:, 0], over[:, 1]

    def _by_ids(self, layer: LayerProfile, option: LayerOption) -> tuple[FloatArray, FloatArray]:
        """Without ids, and of each, of either form."""
        forms = self._at(layer, option)
        none, one = replace(layer, in_features=0), replace(layer, in_features=1)
        both = []
        for cost in (ServingForms.summand, ServingForms.folded_summand):
            start = self.amount(cost(forms, none))
            both.append(np.array([start, self.amount(cost(forms, one)) - start]))
        return both[0], both[1]

    def _first(self, layer: LayerProfile, options: Options, names: list[str]) -> tuple[FloatArray, FloatArray]:
        """Costs over dense at the widest latents, and slopes (options, embeddings)."""
        embedding, reader = self.first[layer.layer_name]
        widest = self.latents[embedding.name] - (embedding.num_values if reader.by_field and embedding.raw_values else 0)
        slopes = np.zeros((len(options), len(names)))
        column = names.index(embedding.name)
        for number, option in enumerate(options):
            slopes[number, column] = self._slope(self._at(layer, option), reader, layer, widest)
        return self._over_dense(layer, options, lambda forms, own: forms.reading(reader, own, widest)), slopes

    def _slope(self, forms: ServingForms, reader: ReaderProfile, layer: LayerProfile, widest: int) -> float:
        return self.amount(forms.reading(reader, layer, widest)) - self.amount(forms.reading(reader, layer, widest - 1))

    def _base_slope(self, embedding: EmbeddingProfile) -> float:
        """Of the readers themselves, and of first layers that have no choice."""
        free = {layer.layer_name for layer in self.layers}
        total = 0.0
        for reader in embedding.readers:
            total += self.amount(self.dense.reading_slope(reader))
            for name in reader.first_layers:
                if name not in free:
                    total += self._slope(self.dense, reader, self.dense.profile.by_name[name], self.latents[embedding.name])
        return total
