"""DCN (Wang, Fu, Fu, Wang: "Deep & Cross Network for Ad Click Predictions", ADKDD 2017)."""

from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import DCNConfig
from ctrlab.models.layers import MLP, CrossNetwork, FieldEmbedding


class DCN(CTRModel):
    """logit = w^T [cross(x_0), MLP(x_0)] + b with x_0 = [e_1, ..., e_N].

    The combination layer w is held as two parts, `cross_head` and the last unit of `mlp`; their sum is the paper's eq. 5.
    Parameters: sum(field_dims) d in tables; V d; 2 L N d in crosses; N d in `cross_head`; the MLP's on N d inputs.
    """

    embedding_readers = ("cross", "mlp")

    def __init__(self, config: DCNConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        width = schema.num_fields * config.embed_dim
        self.embedding = FieldEmbedding(schema, config.embed_dim, config.embedding_init_std)
        self.cross = CrossNetwork(width, config.cross_layers)
        self.cross_head = nn.Linear(width, 1, bias=False)
        self.mlp = MLP(width, config.mlp_dims, dropout=config.dropout, batch_norm=config.batch_norm)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        x0 = self.embedding(fields).flatten(1)
        return (self.cross_head(self.cross(x0)) + self.mlp(x0)).squeeze(1)  # type: ignore[no-any-return]
