"""AFN and AFN+ (Cheng, Shen, Huang: "Adaptive Factorization Network", AAAI 2020)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import AFNConfig, AFNPlusConfig
from ctrlab.models.layers import MLP, FieldEmbedding, with_raw_values

#: Smallest magnitude of an embedding's number before its logarithm.
EPSILON = 1e-5


class LogarithmicInteraction(nn.Module):
    """y_j = exp(sum_i w_ji log|e_i|), elementwise: products of the fields' vectors to learned powers (eq. 8).

    Batch normalisation before and after, as in section 4.3. Parameters: M J + 2 M + 2 J for J logarithmic neurons.
    The neurons are the last dimension: batch normalisation over a middle one took four times as long.
    """

    def __init__(self, num_vectors: int, neurons: int) -> None:
        super().__init__()
        self.log_norm = nn.BatchNorm1d(num_vectors)
        self.powers = nn.Linear(num_vectors, neurons, bias=False)
        self.exp_norm = nn.BatchNorm1d(neurons)

    def forward(self, e: Tensor) -> Tensor:
        """(B, M, d) -> (B, d J)."""
        products: Tensor = self.powers(self.logarithms(e)).exp()
        normalised: Tensor = self.exp_norm(products.flatten(0, 1))
        flat: Tensor = normalised.unflatten(0, (-1, e.shape[2])).flatten(1)
        return flat

    def logarithms(self, e: Tensor) -> Tensor:
        """Normalised: (B, M, d) -> (B, d, M)."""
        normalised: Tensor = self.log_norm(e.abs().clamp(min=EPSILON).log())
        return normalised.transpose(1, 2)


class AFN(CTRModel):
    """logit = MLP([y_1, ..., y_J]) (eq. 9). Numeric values that stay raw join the y_j.

    Parameters: sum(field_dims) d in tables; V d unless numbers are raw; the logarithmic layer's; the MLP's on d J inputs, and V
    more where numbers are raw.
    """

    embedding_readers: ClassVar = {"embedding": ("logarithm",)}

    def __init__(self, config: AFNConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.embedding.require_vectors(1, "AFN")
        self.raw_values = config.numeric_fields == "raw"
        self.logarithm = LogarithmicInteraction(self.embedding.num_vectors, config.logarithmic_neurons)
        raw_width = len(schema.value_names) if self.raw_values else 0
        self.mlp = MLP.of(config, config.logarithmic_neurons * config.embed_dim + raw_width)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        crossed = with_raw_values(self.logarithm(self.embedding(fields)), fields, self.raw_values)
        return self.mlp(crossed).squeeze(1)  # type: ignore[no-any-return]


class AFNPlus(AFN):
    """logit = w_1 AFN + w_2 DNN + b, the DNN on embeddings of its own: neither disturbs the other (section 4.4).

    Parameters: AFN's; the tables and numeric vectors a second time; the DNN's on D inputs; 3 in `head`.
    """

    embedding_readers: ClassVar = {"embedding": ("logarithm",), "deep_embedding": ("deep",)}

    def __init__(self, config: AFNPlusConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.deep_embedding = FieldEmbedding.of(config, schema)
        width = self.deep_embedding.dense_width
        self.deep = MLP(width, config.deep_dims, dropout=config.deep_dropout, batch_norm=config.batch_norm)
        self.head = nn.Linear(2, 1)

    def forward(self, fields: Fields) -> Tensor:
        """-> logits (B,)."""
        deep = self.deep(self.deep_embedding.dense_input(self.deep_embedding(fields), fields))
        both = torch.cat([super().forward(fields).unsqueeze(1), deep], dim=1)
        return self.head(both).squeeze(1)  # type: ignore[no-any-return]
