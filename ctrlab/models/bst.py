"""BST (Chen, Zhao, Li, Huang, Ou: "Behavior Sequence Transformer for E-commerce Recommendation in Alibaba", DLP-KDD 2019)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import BSTConfig
from ctrlab.models.layers import MLP, FieldEmbedding
from ctrlab.models.lists import elements_of, mean_of, target_of, unpacked


class SelfAttention(nn.Module):
    """MH(S) = Concat(head_1, ..., head_h) W^O, head = softmax(Q K^T / sqrt(d_h)) V (BST, eq. 3 and 4), over elements only.

    Parameters: 4 (d^2 + d).
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.out = (nn.Linear(embed_dim, embed_dim) for _ in range(4))

    def forward(self, packed: Tensor, present: Tensor) -> Tensor:
        """Packed elements (n, d) of the places `present` (B, P) -> (n, d)."""
        q, k, v = (self._by_head(unpacked(layer(packed), present)) for layer in (self.q, self.k, self.v))
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        weights = scores.masked_fill(~present[:, None, None, :], float("-inf")).softmax(dim=3)
        heads = (weights @ v).transpose(1, 2).flatten(2)
        return self.out(heads[present])  # type: ignore[no-any-return]

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, P, d) -> (B, heads, P, d / heads)."""
        heads: Tensor = x.unflatten(2, (self.num_heads, -1))
        return heads.transpose(1, 2)


class TransformerBlock(nn.Module):
    """S' = LayerNorm(S + Dropout(MH(S))); F = LayerNorm(S' + Dropout(LeakyReLU(S' W_1 + b_1) W_2 + b_2)) (BST, eq. 5 and 6).

    Parameters: 4 (d^2 + d) + 4 d + 2 d H + H + d.
    """

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(embed_dim, num_heads)
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.widen = nn.Linear(embed_dim, hidden_dim)
        self.narrow = nn.Linear(hidden_dim, embed_dim)
        self.feed_forward_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, s: Tensor, present: Tensor) -> Tensor:
        """Packed (n, d), (B, P) -> (n, d)."""
        s = self.attention_norm(s + self.dropout(self.attention(s, present)))
        fed = self.narrow(functional.leaky_relu(self.widen(s)))
        return self.feed_forward_norm(s + self.dropout(fed))  # type: ignore[no-any-return]


class ListTransformer(nn.Module):
    """Blocks over [e_1, ..., e_l, v] + positions, v the target; the position is the distance to the target, 0 for itself.

    Parameters: (L + 1) d in `position`; the blocks'.
    """

    steps: Tensor

    def __init__(self, config: BSTConfig, length: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(length + 1, config.embed_dim) * config.embedding_init_std)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.embed_dim, config.num_heads, config.hidden_dim, config.dropout)
            for _ in range(config.num_blocks)
        )
        self.register_buffer("steps", torch.arange(length), persistent=False)

    def row_macs(self) -> int:
        """The products of queries and keys, and of weights and values; positions are only added."""
        places, width = self.position.shape
        return 2 * len(self.blocks) * places * places * width

    def forward(self, vectors: Tensor, present: Tensor, target: Tensor) -> Tensor:
        """Elements (B, L, d), where they are (B, L), the target (B, d) -> (B, (L + 1) d), zeros at padding."""
        distance = (present.sum(dim=1, keepdim=True) - self.steps).clamp(min=0)  # of padding: not used
        distance = torch.cat([distance, torch.zeros_like(distance[:, :1])], dim=1)
        s = torch.cat([vectors, target.unsqueeze(1)], dim=1) + self.position[distance]
        present = torch.cat([present, torch.ones_like(present[:, :1])], dim=1)
        packed = s[present]
        for block in self.blocks:
            packed = block(packed, present)
        return unpacked(packed, present).flatten(1)


class BST(CTRModel):
    """logit = MLP([e_1, ..., e_M, Transformer([list k, its target]) for each list k]).

    A list with ids of its own has no target, and gives the mean of its elements. The paper's positions are times before the
    moment of the click; without times they are numbers of steps.

    Parameters, with N blocks of P = 4 (d^2 + d) + 4 d + 2 d H + H + d each (H = hidden_dim): sum(table_dims) d in tables; V d
    unless numbers are raw; (L + 1) d + N P for each list with a target, of length L; the MLP's on D inputs and (L + 1) d for
    each such list, d for the others.
    """

    reads_lists = True

    def __init__(self, config: BSTConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema, lists=True)
        lengths = [feature.length for feature in schema.lists if feature.shares]
        self.transformers = nn.ModuleList(ListTransformer(config, length) for length in lengths)
        vectors = sum(length + 1 for length in lengths) + len(schema.lists) - len(lengths)
        self.mlp = MLP.of(config, self.embedding.dense_width + vectors * config.embed_dim)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        e = self.embedding(fields)
        transformers = iter(self.transformers)
        read = []
        for feature in self.schema.lists:
            vectors, present = elements_of(self.embedding, fields, feature)
            if feature.shares is None:
                read.append(mean_of(vectors, present))
            else:
                read.append(next(transformers)(vectors, present, target_of(e, self.schema, feature)))
        return self.mlp(torch.cat([self.embedding.dense_input(e, fields), *read], dim=1)).squeeze(1)  # type: ignore[no-any-return]
