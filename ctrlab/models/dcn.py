"""DCN (Wang, Fu, Fu, Wang: "Deep & Cross Network for Ad Click Predictions", ADKDD 2017)."""

from typing import ClassVar

from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import DCNConfig
from ctrlab.models.layers import MLP, CrossNetwork, FieldEmbedding


class DCN(CTRModel):
    """logit = w^T [cross(x_0), MLP(x_0)] + b with x_0 = [e_1, ..., e_M].

    The combination layer w is held as two parts, `cross_head` and the last unit of `mlp`; their sum is the paper's eq. 5.
    Parameters: sum(field_dims) d in tables; V d unless numbers are raw; 2 L D in crosses; D in `cross_head`; the MLP's
    on D inputs.
    """

    embedding_readers: ClassVar = {"embedding": ("cross", "mlp")}

    def __init__(self, config: DCNConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        width = self.embedding.dense_width
        self.cross = CrossNetwork(width, config.cross_layers)
        self.cross_head = nn.Linear(width, 1, bias=False)
        self.mlp = MLP.of(config, width)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        x0 = self.embedding.dense_input(self.embedding(fields), fields)
        return (self.cross_head(self.cross(x0)) + self.mlp(x0)).squeeze(1)  # type: ignore[no-any-return]
