"""DeepFM (Guo, Tang, Ye, Li, He: "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017)."""

from typing import ClassVar

from torch import Tensor

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import DeepFMConfig
from ctrlab.models.layers import MLP, FieldEmbedding, InnerProductFM, LinearTerm


class DeepFM(CTRModel):
    """logit = w_0 + sum_i w_i x_i + sum_{i<j} <e_i, e_j> + MLP([e_1, ..., e_M]).

    Parameters: sum(field_dims) (d + 1) in tables; V + 1 in the linear term and, unless they are raw, V d for numeric fields; the
    MLP's on D inputs.
    """

    embedding_readers: ClassVar = {"embedding": ("fm", "mlp")}

    def __init__(self, config: DeepFMConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.linear = LinearTerm(schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.fm = InnerProductFM()
        self.mlp = MLP.of(config, self.embedding.dense_width)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        e = self.embedding(fields)
        return self.linear(fields) + self.fm(e) + self.mlp(self.embedding.dense_input(e, fields)).squeeze(1)  # type: ignore[no-any-return]
