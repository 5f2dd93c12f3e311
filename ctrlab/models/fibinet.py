"""FiBiNET (Huang, Zhang, Zhang: "FiBiNET: Combining Feature Importance and Bilinear feature Interaction", RecSys 2019)."""

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import FiBiNETConfig
from ctrlab.models.configs.attention import BilinearType
from ctrlab.models.layers import MLP, FieldEmbedding, LinearTerm, with_raw_values


class SENet(nn.Module):
    """Fields weighed by importance (section 3.3): v_i = a_i e_i, a = act(W_2 ReLU(W_1 z)), z_i = mean of e_i.

    Parameters: 2 M r with r = max(1, floor(M / reduction_ratio)).
    """

    def __init__(self, num_vectors: int, embed_dim: int, config: FiBiNETConfig) -> None:
        super().__init__()
        self.num_vectors, self.embed_dim = num_vectors, embed_dim
        reduced = max(1, int(num_vectors / config.reduction_ratio))
        self.squeeze = nn.Linear(num_vectors, reduced, bias=False)
        self.excite = nn.Linear(reduced, num_vectors, bias=False)
        self.activation: nn.Module = nn.ReLU() if config.excitation == "relu" else nn.Sigmoid()

    def row_macs(self) -> int:
        """Every element times its field's weight."""
        return self.num_vectors * self.embed_dim

    def forward(self, e: Tensor) -> Tensor:
        """(B, M, d) -> (B, M, d)."""
        return e * self.weights(e).unsqueeze(2)

    def weights(self, e: Tensor) -> Tensor:
        """a: (B, M, d) -> (B, M)."""
        weights: Tensor = self.activation(self.excite(self.squeeze(e.mean(dim=2)).relu()))
        return weights


class BilinearInteraction(nn.Module):
    """p_ij = (W e_i) * e_j, elementwise, for all pairs i < j (section 3.4), in the order (1, 2), (1, 3), ..., (M-1, M).

    W is one matrix for all, one for each left field, or one for each pair; the matrices of one left field are one linear layer,
    so that a batch costs at most M - 1 products, whatever the number of pairs.
    Parameters: d^2; (M - 1) d^2; M (M - 1) / 2 d^2.
    """

    per_position = True  # its `row_macs` are of one pair
    left: Tensor
    right: Tensor

    def __init__(self, num_vectors: int, embed_dim: int, kind: BilinearType) -> None:
        super().__init__()
        self.kind = kind
        self.embed_dim = embed_dim
        others = range(num_vectors - 1, 0, -1)  # right fields of each left field
        widths = {"all": [1], "each": [1 for _ in others], "interaction": list(others)}[kind]
        self.maps = nn.ModuleList(nn.Linear(embed_dim, count * embed_dim, bias=False) for count in widths)
        left, right = torch.triu_indices(num_vectors, num_vectors, offset=1)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)

    @property
    def out_width(self) -> int:
        """Numbers a row, all pairs side by side."""
        return len(self.left) * self.embed_dim

    def row_macs(self) -> int:
        """The elementwise product of a pair."""
        return self.embed_dim

    def forward(self, e: Tensor) -> Tensor:
        """(B, M, d) -> (B, M (M - 1) / 2, d)."""
        return self._mapped(e) * e.index_select(1, self.right)

    def matrices(self) -> Tensor:
        """W of every pair, (M (M - 1) / 2, d, d)."""
        by_field: Tensor = torch.cat([cast(nn.Linear, linear).weight for linear in self.maps]).unflatten(0, (-1, self.embed_dim))
        if self.kind == "interaction":
            return by_field
        return by_field.index_select(0, self.left if self.kind == "each" else torch.zeros_like(self.left))

    def _mapped(self, e: Tensor) -> Tensor:
        """W e_i for every pair."""
        if self.kind == "all":
            mapped: Tensor = self.maps[0](e)
            return mapped.index_select(1, self.left)
        by_field = torch.cat([linear(vector) for linear, vector in zip(self.maps, e.unbind(1), strict=False)], dim=1)
        vectors: Tensor = by_field.unflatten(1, (-1, self.embed_dim))
        return vectors.index_select(1, self.left) if self.kind == "each" else vectors


class PairInteraction(nn.Module):
    """[bilinear(e), bilinear(SENet(e))] with one bilinear layer for both, as FuxiCTR and DeepCTR have it.

    Parameters: those of `senet` and of `bilinear`.
    """

    def __init__(self, num_vectors: int, config: FiBiNETConfig) -> None:
        super().__init__()
        self.senet = SENet(num_vectors, config.embed_dim, config)
        self.bilinear = BilinearInteraction(num_vectors, config.embed_dim, config.bilinear_type)

    @property
    def out_width(self) -> int:
        """Numbers a row, the pairs of both kinds side by side."""
        return 2 * self.bilinear.out_width

    def forward(self, e: Tensor) -> Tensor:
        """(B, M, d) -> (B, M (M - 1) d)."""
        return torch.cat([self.bilinear(e), self.bilinear(self.senet(e))], dim=1).flatten(1)


class FiBiNET(CTRModel):
    """logit = w_0 + sum_i w_i x_i + MLP([bilinear(e), bilinear(SENet(e))]).

    Numeric values that stay raw join the pairs before the MLP. Parameters: sum(field_dims) (d + 1) in tables; V + 1 in the linear
    term and, unless they are raw, V d for numeric fields; 2 M r in SENet; the bilinear layer's; the MLP's on M (M - 1) d inputs,
    and V more where numbers are raw.
    """

    embedding_readers: ClassVar = {"embedding": ("interaction",)}

    def __init__(self, config: FiBiNETConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.linear = LinearTerm(schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.embedding.require_vectors(2, "FiBiNET")
        self.raw_values = config.numeric_fields == "raw"
        self.interaction = PairInteraction(self.embedding.num_vectors, config)
        self.mlp = MLP.of(config, self.interaction.out_width + (len(schema.value_names) if self.raw_values else 0))

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        pairs = with_raw_values(self.interaction(self.embedding(fields)), fields, self.raw_values)
        return self.linear(fields) + self.mlp(pairs).squeeze(1)  # type: ignore[no-any-return]
