"""NFM (He, Chua: "Neural Factorization Machines for Sparse Predictive Analytics", SIGIR 2017)."""

from typing import ClassVar

from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import NFMConfig
from ctrlab.models.layers import MLP, FieldEmbedding, LinearTerm, with_raw_values


class BiInteraction(nn.Module):
    """sum_{i<j} e_i * e_j, elementwise, in O(M d): half of the square of the sum less the sum of the squares (eq. 4)."""

    def __init__(self, num_vectors: int, embed_dim: int) -> None:
        super().__init__()
        self.num_vectors, self.embed_dim = num_vectors, embed_dim

    def row_macs(self) -> int:
        """The squares."""
        return (self.num_vectors + 1) * self.embed_dim

    def forward(self, e: Tensor) -> Tensor:
        """(B, M, d) -> (B, d)."""
        return 0.5 * (e.sum(dim=1).square() - e.square().sum(dim=1))


class NFM(CTRModel):
    """logit = w_0 + sum_i w_i x_i + MLP(sum_{i<j} e_i * e_j) (eq. 3). Numeric values that stay raw join the pooled vector.

    Parameters: sum(field_dims) (d + 1) in tables; V + 1 in the linear term and, unless they are raw, V d for numeric fields; the
    MLP's on d inputs, and V more where numbers are raw.
    """

    embedding_readers: ClassVar = {"embedding": ("pooling",)}

    def __init__(self, config: NFMConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.linear = LinearTerm(schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.embedding.require_vectors(2, "NFM")
        self.raw_values = config.numeric_fields == "raw"
        self.pooling = BiInteraction(self.embedding.num_vectors, config.embed_dim)
        self.mlp = MLP.of(config, config.embed_dim + (len(schema.value_names) if self.raw_values else 0))

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        pooled = with_raw_values(self.pooling(self.embedding(fields)), fields, self.raw_values)
        return self.linear(fields) + self.mlp(pooled).squeeze(1)  # type: ignore[no-any-return]
