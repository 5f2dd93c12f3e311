"""FM (Rendle: "Factorization Machines", ICDM 2010)."""

from typing import ClassVar

from torch import Tensor

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import FMConfig
from ctrlab.models.layers import FieldEmbedding, InnerProductFM, LinearTerm


class FM(CTRModel):
    """logit = w_0 + sum_i w_i x_i + sum_{i<j} <e_i, e_j> (eq. 1).

    Parameters: sum(field_dims) (d + 1) in tables; V + 1 in the linear term and, unless they are raw, V d for numeric fields.
    """

    embedding_readers: ClassVar = {"embedding": ("fm",)}

    def __init__(self, config: FMConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.linear = LinearTerm(schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.embedding.require_vectors(2, "FM")
        self.fm = InnerProductFM()

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        return self.linear(fields) + self.fm(self.embedding(fields))  # type: ignore[no-any-return]
