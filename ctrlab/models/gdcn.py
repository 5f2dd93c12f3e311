"""GDCN (Wang, Gu, Li, Lu, Zhang, Gu: "Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction", CIKM 2023)."""

from typing import ClassVar

from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import GDCNConfig
from ctrlab.models.layers import MLP, FieldEmbedding


class GatedCrossNetwork(nn.Module):
    """c_{l+1} = c_0 * (W_l c_l + b_l) * sigmoid(G_l c_l) + c_l, elementwise: the gate lets only useful crosses pass (eq. 3).

    Parameters: L (2 width^2 + width).
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))
        self.gates = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(num_layers))
        self.width = width

    def row_macs(self) -> int:
        """Two elementwise products a layer."""
        return 2 * len(self.crosses) * self.width

    def forward(self, c0: Tensor) -> Tensor:
        """(B, width) -> (B, width)."""
        c = c0
        for cross, gate in zip(self.crosses, self.gates, strict=True):
            c = c0 * cross(c) * gate(c).sigmoid() + c
        return c


class GDCN(CTRModel):
    """Parallel structure, GDCN-P: logit = w^T [gated_cross(c_0), MLP(c_0)] + b with c_0 = [e_1, ..., e_M].

    w is held as two parts, `cross_head` and the last unit of `mlp`.
    Parameters: sum(field_dims) d in tables; V d unless numbers are raw; L (2 D^2 + D) in crosses; D in `cross_head`; the MLP's on
    D inputs.
    """

    embedding_readers: ClassVar = {"embedding": ("cross", "mlp")}

    def __init__(self, config: GDCNConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        width = self.embedding.dense_width
        self.cross = GatedCrossNetwork(width, config.cross_layers)
        self.cross_head = nn.Linear(width, 1, bias=False)
        self.mlp = MLP.of(config, width)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        c0 = self.embedding.dense_input(self.embedding(fields), fields)
        return (self.cross_head(self.cross(c0)) + self.mlp(c0)).squeeze(1)  # type: ignore[no-any-return]


class StackedGDCN(CTRModel):
    """Stacked structure, GDCN-S: logit = MLP(gated_cross(c_0)).

    Parameters: as GDCN, without `cross_head`.
    """

    embedding_readers: ClassVar = {"embedding": ("cross",)}

    def __init__(self, config: GDCNConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        width = self.embedding.dense_width
        self.cross = GatedCrossNetwork(width, config.cross_layers)
        self.mlp = MLP.of(config, width)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        c0 = self.embedding.dense_input(self.embedding(fields), fields)
        return self.mlp(self.cross(c0)).squeeze(1)  # type: ignore[no-any-return]


def build(config: GDCNConfig, schema: FeatureSchema) -> CTRModel:
    """GDCN of the structure that the settings ask for."""
    return {"parallel": GDCN, "stacked": StackedGDCN}[config.structure](config, schema)
