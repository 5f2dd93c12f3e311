"""The figure of a model as its data flow: a box a block, divided into its layers by parameters, shaded by the rank they need."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from ctrlab.figures.diagram import describe_model_diagram, words
from ctrlab.figures.registry import FIGURES
from ctrlab.figures.text import count, percent
from ctrlab.figures.theme import GREY, ORIGINAL, PAPER, figure
from ctrlab.models.profile import BlockProfile, LayerProfile, ModelProfile

#: Shares of the figure's width: the least of a box, the room between two, and the most that all boxes of a row take.
_LEAST, _GAP, _MOST = 0.1, 0.04, 0.96
#: Heights of a box and of the label above it, in rows.
_BAR, _LABEL = 0.46, 0.27
_ROW_HEIGHT = 78
#: Layers of a block that are drawn; of more, the largest ones.
_MAX_LAYERS = 200


def describe_model_map(profile: ModelProfile, shares: Mapping[str, float] | None = None) -> str:
    """Caption: where the parameters are, and the layer that needs the smallest share of its directions."""
    text = describe_model_diagram(profile).replace(", outlined.", ".")
    if not shares:
        return f"{text} Its spectra are not computed yet, so no rank is shaded."
    least = min(shares, key=lambda name: shares[name])
    return f"{text} Least rank needed: {least}, {percent(shares[least], 0)} of its directions for 95 % of the variance."


@FIGURES.register(title="Model", describe=describe_model_map)
def model_map(profile: ModelProfile, shares: Mapping[str, float] | None = None) -> go.Figure:
    """Blocks from the fields at the top to the logit at the bottom; a click on a layer selects it.

    A box is as wide as the square root of its parameters, a layer in it as its parameters.

    Args:
        profile: of the model.
        shares: {layer: rank for 95 % of the variance / width}, 0..1; layers without one are grey.
    """
    boxes = _boxes(profile)
    depth = max((box.row for box in boxes), default=0)
    segments = [segment for box in boxes for segment in _segments(box, profile.layers_of(box.block.name))]
    known = [segment for segment in segments if segment.layer in (shares or {})]
    return figure(
        [
            _edges(boxes),
            _bars([segment for segment in segments if segment not in known], color=GREY, opacity=0.35),
            _bars(known, **_shade([(shares or {})[segment.layer] for segment in known])),
        ],
        name="model-map",
        height=70 + _ROW_HEIGHT * (depth + 1),
        x={"range": [0, 1], "visible": False, "fixedrange": True},
        y={"range": [depth + 0.6, -0.75], "visible": False, "fixedrange": True},
        barmode="overlay",
        clickmode="event+select",
        showlegend=False,
        uniformtext={"minsize": 10, "mode": "hide"},  # a name that does not fit into its layer is in the hover text
        annotations=[_label(box) for box in boxes],
    )


@dataclass(frozen=True)
class _Box:
    """A block at its place: x of its left end and its width as shares of the figure, and its row from the top."""

    block: BlockProfile
    row: int
    x: float
    width: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True)
class _Segment:
    """A layer's part of a box; layer: "" for what is no layer."""

    layer: str
    text: str
    row: int
    x: float
    width: float


def _boxes(profile: ModelProfile) -> list[_Box]:
    """Each block one row below the lowest of its sources, those of a row side by side and centred."""
    rows = dict.fromkeys((block.name for block in profile.blocks), 0)
    for _ in profile.blocks:  # a source may be listed after its reader; no path is longer than the list
        for block in profile.blocks:
            rows[block.name] = max((rows[source] + 1 for source in block.sources if source in rows), default=0)
    found = []
    for row in sorted(set(rows.values())):
        blocks = [block for block in profile.blocks if rows[block.name] == row]
        found += _row(blocks, row, profile.cost.parameters)
    return found


def _row(blocks: Sequence[BlockProfile], row: int, parameters: int) -> list[_Box]:
    room = _MOST - _GAP * (len(blocks) - 1)
    wanted = [max(_LEAST, 0.6 * math.sqrt(block.cost.parameters / max(parameters, 1))) for block in blocks]
    widths = [width * min(1.0, room / sum(wanted)) for width in wanted]
    x = 0.5 - (sum(widths) + _GAP * (len(blocks) - 1)) / 2
    boxes = []
    for block, width in zip(blocks, widths, strict=True):
        boxes.append(_Box(block, row, x, width))
        x += width + _GAP
    return boxes


def _segments(box: _Box, layers: Sequence[LayerProfile]) -> list[_Segment]:
    """The layers of a box from left to right; one grey segment where it has none."""
    shown = sorted((layer for layer in layers if layer.parameters), key=lambda layer: -layer.parameters)[:_MAX_LAYERS]
    total = sum(layer.parameters for layer in shown)
    if not shown:
        return [_Segment("", box.block.module, box.row, box.x, box.width)]
    x, found = box.x, []
    for layer in shown:
        width = box.width * layer.parameters / total
        found.append(_Segment(layer.layer_name, f"{layer.layer_name}, {count(layer.parameters)} parameters", box.row, x, width))
        x += width
    return found


def _bars(segments: Sequence[_Segment], **look: object) -> dict[str, object]:
    return {
        "type": "bar", "orientation": "h", "base": [segment.x for segment in segments],
        "x": [segment.width for segment in segments],
        "y": [segment.row for segment in segments], "width": _BAR, "customdata": [segment.layer for segment in segments],
        "text": [segment.layer for segment in segments], "textposition": "inside", "insidetextanchor": "middle", "textangle": 0,
        "constraintext": "both", "hovertext": [segment.text for segment in segments],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": {"line": {"width": 1, "color": PAPER}, **look}, "textfont": {"size": 11},
    }  # fmt: skip


def _shade(shares: Sequence[float]) -> dict[str, object]:
    return {
        "color": [100 * share for share in shares], "cmin": 0, "cmax": 100,
        "colorscale": [[0, "rgba(0,114,178,0.15)"], [1, ORIGINAL.color]], "showscale": bool(shares),
        "colorbar": {
            "title": {"text": "rank for 95 % of the variance, of the width", "side": "top", "font": {"size": 12}},
            "orientation": "h",
            "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "len": 0.36, "thickness": 8, "tickvals": [0, 50, 100],
            "ticktext": ["0 %", "50 %", "100 %"], "tickangle": 0, "outlinewidth": 0, "ypad": 0, "xpad": 18,
        },
    }  # fmt: skip


def _edges(boxes: Sequence[_Box]) -> dict[str, object]:
    by_name = {box.block.name: box for box in boxes}
    x: list[float | None] = []
    y: list[float | None] = []
    for box in boxes:
        for source in (by_name[name] for name in box.block.sources if name in by_name):
            x += [source.middle, box.middle, None]
            y += [source.row + _BAR / 2, box.row - _BAR / 2 - _LABEL, None]
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": {"color": GREY, "width": 1.4}, "hoverinfo": "skip"}


def _label(box: _Box) -> dict[str, object]:
    """The block's name and parameters above its box."""
    block = box.block
    name = {"fields": "fields", "logit": "logit"}.get(block.kind, f"{block.name}, {words(block.module)}")
    size = f", {count(block.cost.parameters)}" if block.cost.parameters else ""
    return {
        "x": box.middle, "y": box.row - _BAR / 2, "yanchor": "bottom", "showarrow": False, "text": _escape(f"{name}{size}"),
        "font": {"size": 12}, "bgcolor": PAPER, "borderpad": 1,
    }  # fmt: skip


def _escape(text: str) -> str:
    """`text` with the characters that plotly would read as markup replaced."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
