"""Reading list-valued fields: elements as vectors, and layers that run over the elements alone, never over padding.

Shapes: B rows, L places of a list, d the width of the vectors, n elements in all lists of a batch. A layer runs on *packed*
elements (n, ...), so that its outputs, hence its spectrum and the statistics of its normalisation, are of elements only.
"""

from typing import Protocol

import torch
from torch import Tensor

from ctrlab.data.schema import PADDING_ID, FeatureSchema, Fields, ListFeature


class ListEmbedding(Protocol):
    """What lists need of an embedding: `FieldEmbedding`, or its compressed form."""

    schema: FeatureSchema

    def look_up(self, ids: Tensor, table: int) -> Tensor: ...


def elements_of(embedding: ListEmbedding, fields: Fields, feature: ListFeature) -> tuple[Tensor, Tensor]:
    """The vectors (B, L, d) of a list's elements, zeros at padding; and where elements are, bool (B, L)."""
    schema = embedding.schema
    ids = fields.lists[:, schema.places_of(feature)]
    present = ids != PADDING_ID
    vectors = embedding.look_up(ids, schema.table_of(feature))
    return vectors * present.unsqueeze(-1), present


def target_of(embeddings: Tensor, schema: FeatureSchema, feature: ListFeature) -> Tensor:
    """(B, M, d) -> the vector (B, d) of the field whose ids a list shares: the item that is shown now."""
    return embeddings[:, schema.table_of(feature)]


def mean_of(vectors: Tensor, present: Tensor) -> Tensor:
    """(B, L, d), (B, L) -> (B, d): the mean of a list's elements, zeros for an empty list."""
    return vectors.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1)


def unpacked(packed: Tensor, present: Tensor) -> Tensor:
    """(n, width) -> (B, L, width), zeros at padding."""
    padded = packed.new_zeros(*present.shape, packed.shape[-1])
    return torch.masked_scatter(padded, present.unsqueeze(-1), packed)
