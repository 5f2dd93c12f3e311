"""AutoInt and AutoInt+.

Song et al.: "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks", CIKM 2019.
"""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import AutoIntConfig, AutoIntPlusConfig
from ctrlab.models.layers import MLP, FieldEmbedding, LinearTerm, with_raw_values


class FieldAttention(nn.Module):
    """One interacting layer (section 4.4): every field's vector is renewed from those of all fields that it attends to.

    For each head, alpha = softmax_k <Q e_m, K e_k> and e~_m = sum_k alpha_mk V e_k; heads side by side (eq. 5-7), then
    ReLU(e~_m + R e_m) (eq. 8). R is the identity where the width stays the same.
    """

    def __init__(self, config: AutoIntConfig, num_vectors: int, width: int) -> None:
        super().__init__()
        out = config.attention_dim
        self.num_vectors = num_vectors
        self.heads = config.attention_heads
        self.head_width = out // config.attention_heads
        self.scale = self.head_width**-0.5 if config.attention_scale else 1.0
        self.dropout = config.attention_dropout
        self.query = nn.Linear(width, out, bias=False)
        self.key = nn.Linear(width, out, bias=False)
        self.value = nn.Linear(width, out, bias=False)
        self.residual = _residual(config, width)
        self.norm = nn.LayerNorm(out) if config.attention_layer_norm else nn.Identity()

    def row_macs(self) -> int:
        """The scores and the weighted sums of values, over all pairs of fields; the constant scale folds into the queries."""
        return 2 * self.num_vectors**2 * self.heads * self.head_width

    def forward(self, e: Tensor) -> Tensor:
        """(B, M, width) -> (B, M, attention_dim)."""
        query, key, value = (self._by_head(part(e)) for part in (self.query, self.key, self.value))
        dropout = self.dropout if self.training else 0.0
        renewed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=self.scale)
        return self.combined(renewed.transpose(1, 2).flatten(2), e)

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, M, attention_dim) -> (B, heads, M, head_width)."""
        heads: Tensor = x.unflatten(2, (self.heads, -1))
        return heads.transpose(1, 2)

    def combined(self, renewed: Tensor, e: Tensor) -> Tensor:
        """ReLU(e~ + R e), with layer normalisation where there is one: (B, M, attention_dim), (B, M, width)."""
        if self.residual is not None:
            renewed = renewed + self.residual(e)
        return functional.relu(self.norm(renewed))


def _residual(config: AutoIntConfig, width: int) -> nn.Module | None:
    if not config.attention_residual:
        return None
    return nn.Identity() if width == config.attention_dim else nn.Linear(width, config.attention_dim, bias=False)


class AutoInt(CTRModel):
    """logit = w^T [e_1^(L), ..., e_M^(L)] + b, with e^(0) = e and e^(l) = attention_l(e^(l-1)) (eq. 9).

    Numeric values that stay raw join the vectors behind attention. Parameters: sum(field_dims) d in tables; V d unless numbers
    are raw; with A = attention_dim, 3 d A in the first layer and 3 A^2 in each later one; where there is a residual and
    d != A, d A; 2 A a layer for layer normalisation; M A + 1 in the head, and V where numbers are raw. The linear term
    has sum(field_dims) + V + 1.
    """

    embedding_readers: ClassVar = {"embedding": ("attention.0",)}

    def __init__(self, config: AutoIntConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.linear = LinearTerm(schema) if config.linear_term else None
        self.embedding = FieldEmbedding.of(config, schema)
        self.embedding.require_vectors(1, "AutoInt")
        self.raw_values = config.numeric_fields == "raw"
        vectors, raw_width = self.embedding.num_vectors, len(schema.value_names) if self.raw_values else 0
        widths = [config.embed_dim] + [config.attention_dim] * (config.attention_layers - 1)
        self.attention = nn.Sequential(*(FieldAttention(config, vectors, width) for width in widths))
        self.head = nn.Linear(vectors * config.attention_dim + raw_width, 1)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        return self.attended(self.embedding(fields), fields)

    def attended(self, e: Tensor, fields: Fields) -> Tensor:
        """The vectors (B, M, d) -> attention's part of the logits (B,), the linear term with it."""
        logits: Tensor = self.head(with_raw_values(self.attention(e).flatten(1), fields, self.raw_values)).squeeze(1)
        return logits if self.linear is None else logits + self.linear(fields)


class AutoIntPlus(AutoInt):
    """logit = AutoInt + MLP([e_1, ..., e_M]) (section 5.2.5).

    Parameters: AutoInt's, and the MLP's on D inputs.
    """

    embedding_readers: ClassVar = {"embedding": ("attention.0", "mlp")}

    def __init__(self, config: AutoIntPlusConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.mlp = MLP.of(config, self.embedding.dense_width)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        e = self.embedding(fields)
        return self.attended(e, fields) + self.mlp(self.embedding.dense_input(e, fields)).squeeze(1)  # type: ignore[no-any-return]
