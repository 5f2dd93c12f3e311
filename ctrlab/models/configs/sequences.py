"""Settings of architectures that read what a person did before: list-valued fields."""

from dataclasses import dataclass
from typing import Literal

from ctrlab.config import option
from ctrlab.data.schema import FeatureSchema
from ctrlab.models.configs.base import MODELS, DeepModelConfig


@dataclass(frozen=True, kw_only=True)
class SequenceModelConfig(DeepModelConfig):
    """Settings of architectures that need a list-valued field."""

    def schema_faults(self, schema: FeatureSchema) -> list[str]:
        if schema.lists:
            return []
        title = MODELS.entry_for(self).title
        fields = ", ".join(schema.names[:10]) + (", ..." if len(schema.names) > 10 else "")
        return [
            f"{title} needs a list-valued field; this dataset has none: {fields}; "
            "give a column the role list, or choose another model"
        ]


@dataclass(frozen=True, kw_only=True)
class TargetModelConfig(SequenceModelConfig):
    """Settings of architectures that compare a list's elements with the item that is shown now, the target."""

    def schema_faults(self, schema: FeatureSchema) -> list[str]:
        faults = super().schema_faults(schema)
        if not faults and all(feature.shares is None for feature in schema.lists):
            own = ", ".join(feature.name for feature in schema.lists)
            faults = [
                f"{MODELS.entry_for(self).title} compares a list's elements with the field whose ids they share, and no list of "
                f"this dataset shares any ({own}); let a list share the ids of a categorical column"
            ]
        return faults


@MODELS.register(
    "din",
    builder="ctrlab.models.din:DIN",
    title="DIN",
    description="What a person did before, weighed by its nearness to the item shown, beside an MLP (Zhou et al., 2018).",
)
@dataclass(frozen=True, kw_only=True)
class DINConfig(TargetModelConfig):
    """Deep Interest Network."""

    attention_dims: tuple[int, ...] = option(
        (36,), minimum=1, maximum=4096, label="Attention widths", help="Hidden layer widths of the activation unit."
    )
    activation: Literal["dice", "prelu", "relu"] = option(
        "dice", help="Activation inside the activation unit; the paper's is dice."
    )


@MODELS.register(
    "gru4rec",
    builder="ctrlab.models.gru4rec:GRU4Rec",
    title="GRU4Rec",
    description="A recurrent network reads what a person did in its order; its last state joins the MLP (Hidasi et al., 2016).",
)
@dataclass(frozen=True, kw_only=True)
class GRU4RecConfig(SequenceModelConfig):
    """GRU4Rec, its last state used for the click on the item shown."""

    hidden_dim: int = option(64, minimum=1, maximum=4096, help="Width of the recurrent state.")


@MODELS.register(
    "bst",
    builder="ctrlab.models.bst:BST",
    title="BST",
    description="A Transformer over what a person did and the item shown, beside the other fields in an MLP (Chen et al., 2019).",
)
@dataclass(frozen=True, kw_only=True)
class BSTConfig(TargetModelConfig):
    """Behavior Sequence Transformer."""

    num_heads: int = option(4, minimum=1, maximum=64, help="Attention heads; the embedding width must be a multiple of it.")
    num_blocks: int = option(1, minimum=1, maximum=12, help="Transformer blocks; the paper found one to be best.")
    hidden_dim: int = option(64, minimum=1, maximum=8192, help="Width of the feed-forward layer in a block.")

    def faults(self) -> list[str]:
        if self.embed_dim % self.num_heads:
            return [f"embed_dim must be a multiple of num_heads={self.num_heads}, got {self.embed_dim}"]
        return []
