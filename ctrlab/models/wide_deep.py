"""Wide & Deep (Cheng et al.: "Wide & Deep Learning for Recommender Systems", DLRS 2016)."""

from typing import ClassVar

from torch import Tensor

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import WideDeepConfig
from ctrlab.models.layers import MLP, FieldEmbedding, LinearTerm


class WideDeep(CTRModel):
    """logit = w_0 + sum_i w_i x_i + MLP([e_1, ..., e_M]) (eq. 3), the wide part without hand-made crosses.

    Parameters: sum(field_dims) (d + 1) in tables; V + 1 in the linear term and, unless they are raw, V d for numeric fields; the
    MLP's on D inputs.
    """

    embedding_readers: ClassVar = {"embedding": ("mlp",)}

    def __init__(self, config: WideDeepConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.linear = LinearTerm(schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.mlp = MLP.of(config, self.embedding.dense_width)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        x = self.embedding.dense_input(self.embedding(fields), fields)
        return self.linear(fields) + self.mlp(x).squeeze(1)  # type: ignore[no-any-return]
