"""Deep Crossing (Shan et al., KDD 2016): residual blocks over the concatenated embedding vectors."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ctrlab.config import option
from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import MODELS, EmbeddingModelConfig
from ctrlab.models.layers import FieldEmbedding


@MODELS.register("deep_crossing", builder=f"{__name__}:DeepCrossing", title="Deep Crossing")
@dataclass(frozen=True, kw_only=True)
class DeepCrossingConfig(EmbeddingModelConfig):
    """Settings: each becomes a form field, a command-line flag and a key of the stored JSON."""

    width: int = option(32, minimum=1, help="Units of every residual block.")
    num_blocks: int = option(2, minimum=1, help="Residual blocks.")


class DeepCrossing(CTRModel):
    """h_0 = relu(W x + b); h_{l+1} = h_l + relu(W_l h_l + b_l); logit = w . h_L + w_0."""

    embedding_readers: ClassVar = {"embedding": ("entry",)}

    def __init__(self, config: DeepCrossingConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema)
        self.embedding = FieldEmbedding.of(config, schema)
        self.entry = nn.Linear(self.embedding.dense_width, config.width)
        self.blocks = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.num_blocks))
        self.logit = nn.Linear(config.width, 1)

    def forward(self, fields: Fields) -> Tensor:
        h = self.entry(self.embedding.dense_input(self.embedding(fields), fields)).relu()
        for block in self.blocks:
            h = h + block(h).relu()
        return self.logit(h).squeeze(1)
