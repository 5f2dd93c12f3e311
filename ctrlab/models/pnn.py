"""PNN (Qu, Cai, Ren, Zhang, Yu, Wen, Wang: "Product-based Neural Networks for User Response Prediction", ICDM 2016)."""

from typing import ClassVar

from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import PNNConfig
from ctrlab.models.layers import MLP, FieldEmbedding
from ctrlab.models.products import InnerProducts


class OuterProduct(nn.Module):
    """f f^T with f = sum_i e_i, all d^2 numbers of it (OPNN with superposition, section III-C)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim

    def row_macs(self) -> int:
        """Every product."""
        return self.embed_dim**2

    def forward(self, e: Tensor) -> Tensor:
        """(B, M, d) -> (B, d^2)."""
        f = e.sum(dim=1)
        return (f.unsqueeze(2) * f.unsqueeze(1)).flatten(1)


class PNN(CTRModel):
    """logit = MLP(l_1), l_1 = ReLU(W_z [e_1, ..., e_M] + W_p p + b) with p the products (eq. 3 to 6).

    Parameters: sum(field_dims) d in tables; V d unless numbers are raw; with h the first of mlp_dims and P the number of
    products, (D + 1) h in `signal` and P h in `product_weight`; the MLP's further layers, and 2 h for batch normalisation.
    """

    embedding_readers: ClassVar = {"embedding": ("signal", "product")}

    def __init__(self, config: PNNConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.embedding.require_vectors(2, "PNN")
        first, *rest = config.mlp_dims
        inner = config.product == "inner"
        self.product = InnerProducts(self.embedding.num_vectors) if inner else OuterProduct(config.embed_dim)
        num_products = self.product.num_pairs if isinstance(self.product, InnerProducts) else config.embed_dim**2
        self.signal = nn.Linear(self.embedding.dense_width, first)
        self.product_weight = nn.Linear(num_products, first, bias=False)
        self.activation = nn.Sequential(
            nn.BatchNorm1d(first) if config.batch_norm else nn.Identity(), nn.ReLU(), nn.Dropout(config.dropout)
        )
        self.mlp = MLP(first, rest, dropout=config.dropout, batch_norm=config.batch_norm)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        e = self.embedding(fields)
        first = self.signal(self.embedding.dense_input(e, fields)) + self.product_weight(self.product(e))
        return self.mlp(self.activation(first)).squeeze(1)  # type: ignore[no-any-return]
