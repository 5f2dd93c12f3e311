"""MaskNet (Wang, She, Zhang: "Introducing Feature-Wise Multiplication to CTR Ranking Models", DLP-KDD 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import MaskNetConfig
from ctrlab.models.layers import MLP, FieldEmbedding, with_raw_values


class FieldNorm(nn.Module):
    """LN_i(e_i) for every field i: layer normalisation of its vector, with a scale and a shift of its own. Parameters: 2 M d."""

    def __init__(self, num_vectors: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.scale = nn.Parameter(torch.ones(num_vectors * width))
        self.shift = nn.Parameter(torch.zeros(num_vectors * width))

    def row_macs(self) -> int:
        """The square, the division and the scale."""
        return 3 * len(self.scale)

    def forward(self, e: Tensor) -> Tensor:
        """(B, M, d) -> (B, M d)."""
        return functional.layer_norm(e, (self.width,)).flatten(1) * self.scale + self.shift


class MaskBlock(nn.Module):
    """ReLU(LN(W (mask * v))), mask = W_2 ReLU(W_1 x + b_1) + b_2: the row's own input x says which of v counts (eq. 2 to 6).

    Parameters, for x of width D, v of width n, an aggregation layer of width a and output width m: (D + 1) a + (a + 1) n + n m
    + 2 m.
    """

    def __init__(self, in_width: int, width: int, out_width: int, reduction: float, dropout: float) -> None:
        super().__init__()
        aggregated = max(1, int(width * reduction))
        self.mask = nn.Sequential(nn.Linear(in_width, aggregated), nn.ReLU(), nn.Linear(aggregated, width))
        self.hidden = nn.Linear(width, out_width, bias=False)
        self.norm = nn.LayerNorm(out_width)
        self.dropout = nn.Dropout(dropout)
        self.width = width

    def row_macs(self) -> int:
        """The mask times what it masks."""
        return self.width

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        """(B, D), (B, n) -> (B, m)."""
        masked: Tensor = self.dropout(self.norm(self.hidden(self.mask(x) * v)).relu())
        return masked


class MaskNet(CTRModel):
    """Parallel: logit = MLP([block_1(x, v), ..., block_K(x, v)]). Serial: v_{l+1} = block_l(x, v_l) and logit = w^T v_L + b.

    x = [e_1, ..., e_M], and v = [LN(e_1), ..., LN(e_M)]; raw values join both.
    Parameters: sum(field_dims) d in tables; V d unless numbers are raw; 2 M d in `embedding_norm`; the blocks'; the MLP's on K m
    inputs, or for the serial structure the last block's width and 1.
    """

    def __init__(self, config: MaskNetConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.embedding.require_vectors(1, "MaskNet")
        self.raw_values = config.numeric_fields == "raw"
        vectors, width = self.embedding.num_vectors, self.embedding.dense_width
        self.embedding_norm = FieldNorm(vectors, config.embed_dim)
        settings = {"reduction": config.mask_reduction, "dropout": config.dropout}
        if config.structure == "parallel":
            sizes = [(width, config.block_dim)] * config.num_blocks
            self.mlp = MLP.of(config, config.num_blocks * config.block_dim)
        else:
            sizes = list(zip((width, *config.mlp_dims), config.mlp_dims, strict=False))
            self.mlp = MLP(config.mlp_dims[-1], ())
        self.parallel = config.structure == "parallel"
        self.blocks = nn.ModuleList(MaskBlock(width, below, above, **settings) for below, above in sizes)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        e = self.embedding(fields)
        x = self.embedding.dense_input(e, fields)
        v = with_raw_values(self.embedding_norm(e), fields, self.raw_values)
        if self.parallel:
            v = torch.cat([block(x, v) for block in self.blocks], dim=1)
        else:
            for block in self.blocks:
                v = block(x, v)
        return self.mlp(v).squeeze(1)  # type: ignore[no-any-return]
