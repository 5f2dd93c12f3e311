"""xDeepFM (Lian et al.: "xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender Systems", KDD 2018)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import XDeepFMConfig
from ctrlab.models.layers import MLP, FieldEmbedding, LinearTerm


class CompressedInteraction(nn.Module):
    """CIN: X^k_h = sum_ij W^{k,h}_ij X^{k-1}_i * X^0_j + b^k_h, elementwise (eq. 6), each pooled by its sum over d (eq. 7).

    A layer is one linear map of the H_{k-1} M products of every embedding dimension.
    Parameters: sum_k (H_{k-1} M + 1) H_k with H_0 = M.
    """

    def __init__(self, num_vectors: int, embed_dim: int, dims: Sequence[int]) -> None:
        super().__init__()
        self.num_vectors, self.embed_dim = num_vectors, embed_dim
        heights = [num_vectors, *dims]
        self.layers = nn.ModuleList(nn.Linear(below * num_vectors, height) for below, height in zip(heights, dims, strict=False))
        self.products = sum(heights[:-1]) * num_vectors * embed_dim

    def row_macs(self) -> int:
        """The elementwise products of every layer's vectors with the field's."""
        return self.products

    def forward(self, e: Tensor) -> Tensor:
        """(B, M, d) -> (B, sum of H_k)."""
        fields = e.transpose(1, 2)  # (B, d, M): each embedding dimension crosses by itself
        below, pooled = fields, []
        for layer in self.layers:
            below = layer((below.unsqueeze(3) * fields.unsqueeze(2)).flatten(2))
            pooled.append(below.sum(dim=1))
        return torch.cat(pooled, dim=1)


class XDeepFM(CTRModel):
    """logit = w_0 + sum_i w_i x_i + w^T CIN(e) + MLP([e_1, ..., e_M]) (eq. 11).

    Parameters: sum(field_dims) (d + 1) in tables; V + 1 in the linear term and, unless they are raw, V d for numeric fields; the
    CIN's; sum_k H_k in `cin_head`; the MLP's on D inputs.
    """

    embedding_readers: ClassVar = {"embedding": ("cin", "mlp")}

    def __init__(self, config: XDeepFMConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.linear = LinearTerm(schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.embedding.require_vectors(1, "xDeepFM")
        self.cin = CompressedInteraction(self.embedding.num_vectors, config.embed_dim, config.cin_dims)
        self.cin_head = nn.Linear(sum(config.cin_dims), 1, bias=False)
        self.mlp = MLP.of(config, self.embedding.dense_width)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        e = self.embedding(fields)
        crossed = self.cin_head(self.cin(e)) + self.mlp(self.embedding.dense_input(e, fields))
        return self.linear(fields) + crossed.squeeze(1)  # type: ignore[no-any-return]
