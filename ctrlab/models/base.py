"""What every architecture is: a config, a schema, and a `forward` from fields to logits."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.errors import ConfigError
from ctrlab.models.configs import MODELS, ModelConfig
from ctrlab.models.structure import Structure


class CTRModel(nn.Module):
    """Base of the zoo.

    embedding_readers: {name of a FieldEmbedding: names of the submodules that read its output, or its `dense_input`}. Everything
    that uses the output must be among them. Compression folds the tables' projections into them when all can take it.
    reads_lists: whether list fields are read; other architectures leave them out.
    structure: what compression did to the layers, which a checkpoint keeps; None for the architecture as published.
    """

    embedding_readers: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    reads_lists: ClassVar[bool] = False
    structure: Structure | None = None

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
