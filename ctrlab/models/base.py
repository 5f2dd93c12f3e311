"""What every architecture is: a config, a schema, and a `forward` from fields to logits."""

from typing import Any, ClassVar

from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.errors import ConfigError
from ctrlab.models.configs import MODELS, ModelConfig


class CTRModel(nn.Module):
    """Base of the zoo.

    embedding_readers: names of the submodules whose input is the embedding's output, or its flattening. Compression
    folds the embedding's projection into them when all of them can take it.
    reads_lists: whether list fields are read; other architectures leave them out.
    structure: what compression did to the layers, as JSON that a checkpoint keeps; None for the architecture as published.
    """

    embedding_readers: ClassVar[tuple[str, ...]] = ()
    reads_lists: ClassVar[bool] = False
    structure: dict[str, Any] | None = None

    def __init__(self, config: ModelConfig, schema: FeatureSchema) -> None:
        super().__init__()
        self.config = config
        self.schema = schema

    def forward(self, fields: Fields) -> Tensor:
        """Logits (B,) of a click; the probability is their sigmoid."""
        raise NotImplementedError


def build_model(config: ModelConfig, schema: FeatureSchema) -> CTRModel:
    """The registered architecture of `config`, freshly initialised from torch's global generator.

    Raises:
        ConfigError: the architecture needs fields that `schema` has not.
    """
    if faults := config.schema_faults(schema):
        raise ConfigError("; ".join(faults))
    model: CTRModel = MODELS.entry_for(config).builder()(config, schema)
    return model
