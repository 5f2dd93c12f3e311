"""Settings of architectures that cross features of ever higher degree explicitly."""

from dataclasses import dataclass
from typing import Literal

from ctrlab.config import option
from ctrlab.models.configs.base import MODELS, DeepModelConfig

Structure = Literal["parallel", "stacked"]
_STRUCTURE_HELP = "parallel: crosses beside the MLP. stacked: the MLP reads the crosses."


@MODELS.register(
    "dcn",
    builder="ctrlab.models.dcn:DCN",
    title="DCN",
    description="Explicit bounded-degree feature crosses beside an MLP (Wang et al., 2017).",
)
@dataclass(frozen=True, kw_only=True)
class DCNConfig(DeepModelConfig):
    """Deep & Cross Network."""

    cross_layers: int = option(3, minimum=1, maximum=16, help="Number of cross layers, hence the highest degree is one more.")


@MODELS.register(
    "dcnv2",
    builder="ctrlab.models.dcnv2:build",
    title="DCN V2",
    description="Crosses with a full matrix a layer, beside or below an MLP (Wang et al., 2021).",
)
@dataclass(frozen=True, kw_only=True)
class DCNv2Config(DeepModelConfig):
    """Deep & Cross Network V2."""

    cross_layers: int = option(3, minimum=1, maximum=16, help="Number of cross layers, hence the highest degree is one more.")
    structure: Structure = option("parallel", help=_STRUCTURE_HELP)


@MODELS.register(
    "gdcn",
    builder="ctrlab.models.gdcn:build",
    title="GDCN",
    description="Crosses with a gate that lets only useful ones pass, beside or below an MLP (Wang et al., 2023).",
)
@dataclass(frozen=True, kw_only=True)
class GDCNConfig(DeepModelConfig):
    """Gated Deep & Cross Network."""

    cross_layers: int = option(3, minimum=1, maximum=16, help="Number of gated cross layers.")
    structure: Structure = option("parallel", help=_STRUCTURE_HELP)


@MODELS.register(
    "xdeepfm",
    builder="ctrlab.models.xdeepfm:XDeepFM",
    title="xDeepFM",
    description="A compressed interaction network, whole vectors crossed layer by layer, beside an MLP (Lian et al., 2018).",
)
@dataclass(frozen=True, kw_only=True)
class XDeepFMConfig(DeepModelConfig):
    """xDeepFM."""

    cin_dims: tuple[int, ...] = option(
        (64,),
        minimum=1,
        maximum=1024,
        label="CIN widths",
        help="Feature maps of each layer of the CIN.",
    )

    def faults(self) -> list[str]:
        return [] if self.cin_dims else ["cin_dims must name at least one layer; without any, use Wide & Deep"]
