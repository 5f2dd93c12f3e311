"""DeepFM (Guo, Tang, Ye, Li, He: "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017)."""

from torch import Tensor

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import DeepFMConfig
from ctrlab.models.layers import MLP, FieldEmbedding, InnerProductFM, LinearTerm


class DeepFM(CTRModel):
    """logit = w_0 + sum_i w_i x_i + sum_{i<j} <e_i, e_j> + MLP([e_1, ..., e_N]).

    Parameters: sum(field_dims) (d + 1) in tables; V (d + 1) + 1 for numeric fields and bias; the MLP's on N d inputs.
    """

    embedding_readers = ("fm", "mlp")

    def __init__(self, config: DeepFMConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.linear = LinearTerm(schema)
        self.embedding = FieldEmbedding(schema, config.embed_dim, config.embedding_init_std)
        self.fm = InnerProductFM()
        self.mlp = MLP(
            schema.num_fields * config.embed_dim, config.mlp_dims, dropout=config.dropout, batch_norm=config.batch_norm
        )

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        e = self.embedding(fields)
        return self.linear(fields) + self.fm(e) + self.mlp(e.flatten(1)).squeeze(1)  # type: ignore[no-any-return]
