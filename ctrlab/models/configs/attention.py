"""Settings of architectures that weigh features by each other: attention, masks, gates."""

from dataclasses import dataclass
from typing import Literal

from ctrlab.config import option
from ctrlab.models.configs.base import MODELS, DeepModelConfig, EmbeddingModelConfig


@MODELS.register(
    "autoint",
    builder="ctrlab.models.autoint:AutoInt",
    title="AutoInt",
    description="Self-attention over the fields' vectors, layer on layer (Song et al., 2019).",
)
@dataclass(frozen=True, kw_only=True)
class AutoIntConfig(EmbeddingModelConfig):
    """Automatic feature interaction by self-attention."""

    attention_layers: int = option(2, minimum=1, maximum=16, help="Number of self-attention layers.")
    attention_dim: int = option(
        64, minimum=1, maximum=4096, help="Width of a field's vector behind each layer, all heads together."
    )
    attention_heads: int = option(
        2, minimum=1, maximum=64, help="Attention heads a layer; they share the attention width evenly."
    )
    attention_dropout: float = option(0.0, minimum=0.0, maximum=0.9, step=0.05, help="Dropout rate of the attention weights.")
    attention_residual: bool = option(True, help="Add each layer's input, projected where its width differs, to its output.")
    attention_scale: bool = option(
        False, advanced=True, help="Divide attention scores by the root of a head's width; the paper does not."
    )
    attention_layer_norm: bool = option(False, advanced=True, help="Layer normalisation before each layer's ReLU.")
    linear_term: bool = option(False, advanced=True, help="Add the first-order term: a weight for every id and numeric field.")

    def faults(self) -> list[str]:
        """Heads share the width evenly."""
        if self.attention_dim % self.attention_heads:
            return [f"attention_dim {self.attention_dim} must be a multiple of attention_heads {self.attention_heads}"]
        return []


@MODELS.register(
    "autoint_plus",
    builder="ctrlab.models.autoint:AutoIntPlus",
    title="AutoInt+",
    description="AutoInt with an MLP over the same embeddings, added (Song et al., 2019).",
)
@dataclass(frozen=True, kw_only=True)
class AutoIntPlusConfig(DeepModelConfig, AutoIntConfig):
    """AutoInt beside an MLP."""


#: Which matrices FiBiNET's bilinear layer has: one for all pairs, one for each left field, or one for each pair.
BilinearType = Literal["all", "each", "interaction"]


@MODELS.register(
    "fibinet",
    builder="ctrlab.models.fibinet:FiBiNET",
    title="FiBiNET",
    description="Fields weighed by their importance, pairs of them crossed by bilinear products (Huang et al., 2019).",
)
@dataclass(frozen=True, kw_only=True)
class FiBiNETConfig(DeepModelConfig):
    """Feature Importance and Bilinear feature Interaction Network."""

    bilinear_type: BilinearType = option(
        "interaction",
        help="Matrices of the bilinear products. all: one; each: one for every left field; interaction: one a pair.",
    )
    reduction_ratio: float = option(
        3.0, minimum=1.0, maximum=64.0, help="The importance network's inner width is fields / ratio."
    )
    excitation: Literal["relu", "sigmoid"] = option(
        "relu", advanced=True, help="Last activation of the importance network; the paper has ReLU."
    )


@MODELS.register(
    "finalmlp",
    builder="ctrlab.models.finalmlp:FinalMLP",
    title="FinalMLP",
    description="Two MLPs on inputs gated by context, joined by a bilinear product (Mao et al., 2023).",
)
@dataclass(frozen=True, kw_only=True)
class FinalMLPConfig(EmbeddingModelConfig):
    """Two-stream MLP with feature selection and bilinear fusion."""

    mlp1_dims: tuple[int, ...] = option(
        (400, 400, 400), minimum=1, maximum=16384, label="MLP 1 widths", help="Hidden layer widths of the first stream."
    )
    mlp2_dims: tuple[int, ...] = option(
        (400, 400, 400), minimum=1, maximum=16384, label="MLP 2 widths", help="Hidden layer widths of the second stream."
    )
    mlp1_dropout: float = option(0.0, minimum=0.0, maximum=0.9, step=0.05, help="Dropout rate in the first stream.")
    mlp2_dropout: float = option(0.0, minimum=0.0, maximum=0.9, step=0.05, help="Dropout rate in the second stream.")
    batch_norm: bool = option(False, help="Batch normalisation after each hidden linear layer of both streams.")
    feature_selection: bool = option(True, help="Gate each stream's input by its context fields.")
    gate_dims: tuple[int, ...] = option((64,), minimum=1, maximum=16384, help="Hidden layer widths of both gates.")
    context1: tuple[str, ...] = option(
        (), help="Fields that gate the first stream, such as the user's; none: one learned context for all rows."
    )
    context2: tuple[str, ...] = option(
        (), help="Fields that gate the second stream, such as the item's; none: one learned context for all rows."
    )
    fusion_heads: int = option(
        1, minimum=1, maximum=1024, help="Blocks into which both streams are cut for the bilinear product."
    )

    def faults(self) -> list[str]:
        """Streams and gates have hidden layers, and heads cut the streams evenly."""
        empty = [name for name in ("mlp1_dims", "mlp2_dims", "gate_dims") if not getattr(self, name)]
        uneven = [
            f"the last of {name}, {getattr(self, name)[-1]}, must be a multiple of fusion_heads {self.fusion_heads}"
            for name in ("mlp1_dims", "mlp2_dims")
            if getattr(self, name) and getattr(self, name)[-1] % self.fusion_heads
        ]
        return [f"{name} must name at least one width" for name in empty] + uneven


@MODELS.register(
    "masknet",
    builder="ctrlab.models.masknet:MaskNet",
    title="MaskNet",
    description="Blocks that multiply their input by a mask made from the row itself (Wang et al., 2021).",
)
@dataclass(frozen=True, kw_only=True)
class MaskNetConfig(DeepModelConfig):
    """MaskNet; in the serial structure the MLP widths are those of the blocks."""

    structure: Literal["parallel", "serial"] = option(
        "parallel", help="parallel: blocks below an MLP. serial: one after another."
    )
    num_blocks: int = option(3, minimum=1, maximum=32, help="Blocks of the parallel structure.")
    block_dim: int = option(64, minimum=1, maximum=16384, help="Output width of each parallel block.")
    mask_reduction: float = option(
        2.0, minimum=0.01, maximum=16.0, advanced=True, help="Width of the layer that makes a mask, as a multiple of the mask's."
    )

    def faults(self) -> list[str]:
        """A serial MaskNet is made of its blocks."""
        serial = self.structure == "serial" and not self.mlp_dims
        return ["mlp_dims must name at least one block of the serial structure"] if serial else []
