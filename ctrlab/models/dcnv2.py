"""DCN V2 (Wang, Shivanna, Cheng, Jain, Lin, Hong, Chi: "DCN V2: Improved Deep & Cross Network", WWW 2021)."""

from typing import ClassVar

from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import DCNv2Config
from ctrlab.models.layers import MLP, FieldEmbedding


class MatrixCrossNetwork(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, elementwise, for each layer l (eq. 1).

    Parameters: L (width^2 + width).
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))
        self.width = width

    def row_macs(self) -> int:
        """The elementwise product of every layer."""
        return len(self.layers) * self.width

    def forward(self, x0: Tensor) -> Tensor:
        """(B, width) -> (B, width)."""
        x = x0
        for layer in self.layers:
            x = x0 * layer(x) + x
        return x


class DCNv2(CTRModel):
    """Parallel structure: logit = w^T [cross(x_0), MLP(x_0)] + b with x_0 = [e_1, ..., e_M] (eq. 4).

    w is held as two parts, `cross_head` and the last unit of `mlp`.
    Parameters: sum(field_dims) d in tables; V d unless numbers are raw; L (D^2 + D) in crosses; D in `cross_head`; the MLP's on D
    inputs.
    """

    embedding_readers: ClassVar = {"embedding": ("cross", "mlp")}

    def __init__(self, config: DCNv2Config, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        width = self.embedding.dense_width
        self.cross = MatrixCrossNetwork(width, config.cross_layers)
        self.cross_head = nn.Linear(width, 1, bias=False)
        self.mlp = MLP.of(config, width)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        x0 = self.embedding.dense_input(self.embedding(fields), fields)
        return (self.cross_head(self.cross(x0)) + self.mlp(x0)).squeeze(1)  # type: ignore[no-any-return]


class StackedDCNv2(CTRModel):
    """Stacked structure: logit = MLP(cross(x_0)) (section 3.3).

    Parameters: as DCNv2, without `cross_head`.
    """

    embedding_readers: ClassVar = {"embedding": ("cross",)}

    def __init__(self, config: DCNv2Config, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        width = self.embedding.dense_width
        self.cross = MatrixCrossNetwork(width, config.cross_layers)
        self.mlp = MLP.of(config, width)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        x0 = self.embedding.dense_input(self.embedding(fields), fields)
        return self.mlp(self.cross(x0)).squeeze(1)  # type: ignore[no-any-return]


def build(config: DCNv2Config, schema: FeatureSchema) -> CTRModel:
    """DCN V2 of the structure that the settings ask for."""
    return {"parallel": DCNv2, "stacked": StackedDCNv2}[config.structure](config, schema)
