"""DLRM (Naumov et al.: "Deep Learning Recommendation Model for Personalization and Recommendation Systems", 2019)."""

from typing import ClassVar

import torch
from torch import Tensor

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import DLRMConfig
from ctrlab.models.layers import MLP, FieldEmbedding
from ctrlab.models.products import InnerProducts


class DLRM(CTRModel):
    """logit = top(inner products of all pairs among x, e_1, ..., e_M, and x) with x = bottom(values) (section 2.1).

    Parameters: sum(field_dims) d in tables; the bottom MLP's on V inputs, ending in d; the top MLP's on d + (M + 1) M / 2 inputs.
    """

    def __init__(self, config: DLRMConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.embedding.require_vectors(1, "DLRM")
        widths = (*config.bottom_dims, config.embed_dim)
        self.bottom = MLP(len(schema.value_names), widths, head=False)
        self.products = InnerProducts(self.embedding.num_vectors + 1)
        self.mlp = MLP.of(config, config.embed_dim + self.products.num_pairs)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        x = self.bottom(fields.values)
        products = self.products(torch.cat([x.unsqueeze(1), self.embedding(fields)], dim=1))
        return self.mlp(torch.cat([x, products], dim=1)).squeeze(1)  # type: ignore[no-any-return]


class DLRMWithoutNumbers(CTRModel):
    """logit = top(<e_i, e_j> for all i < j): no values, or all of them with vectors of their own.

    Parameters: sum(field_dims) d in tables; V d for numeric fields; the top MLP's on M (M - 1) / 2 inputs.
    """

    embedding_readers: ClassVar = {"embedding": ("products",)}

    def __init__(self, config: DLRMConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.embedding.require_vectors(2, "DLRM without numbers")
        self.products = InnerProducts(self.embedding.num_vectors)
        self.mlp = MLP.of(config, self.products.num_pairs)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        return self.mlp(self.products(self.embedding(fields))).squeeze(1)  # type: ignore[no-any-return]


def build(config: DLRMConfig, schema: FeatureSchema) -> CTRModel:
    """With a bottom MLP where there are raw values for it."""
    with_numbers = config.numeric_fields == "raw" and schema.value_names
    return (DLRM if with_numbers else DLRMWithoutNumbers)(config, schema)
