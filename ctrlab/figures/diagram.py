"""A model as a Mermaid flow chart of its fields, tables, interactions and layers.

The browser draws it in the colours of the page; GitHub and most notebooks render Mermaid too.
"""

import re
from collections.abc import Sequence

from ctrlab.figures.text import count, percent, plural
from ctrlab.figures.theme import ORIGINAL
from ctrlab.models.profile import BlockProfile, LayerProfile, ModelProfile

#: Layers named in one box; with more layers, the largest ones.
MAX_LINES = 4

#: Mermaid's brackets for each kind of block.
_SHAPES = {
    "fields": ("([", "])"), "tables": ("[(", ")]"), "interaction": ("(", ")"), "layers": ("[", "]"), "logit": ("([", "])"),
}  # fmt: skip

#: Boxes are measured with the page's font but drawn without it, so the font is fixed to one that both have.
_FONT = "    classDef default font-family:sans-serif"


def model_diagram(profile: ModelProfile) -> str:
    """Mermaid source: one box a block with its parameters and layers, named as in spectra and plans."""
    ids = {block.name: f"b{number}" for number, block in enumerate(profile.blocks)}
    lines = ["---", "config: {flowchart: {wrappingWidth: 480, padding: 10}}", "---", "flowchart TB", _FONT]
    for block in profile.blocks:
        left, right = _SHAPES[block.kind]
        label = "<br/>".join(_escape(line) for line in _label(block, profile.layers_of(block.name)))
        lines.append(f'    {ids[block.name]}{left}"{label}"{right}')
    lines += [f"    {ids[source]} --> {ids[block.name]}" for block in profile.blocks for source in block.sources]
    largest = max(profile.blocks, key=lambda block: block.cost.parameters)
    lines.append(f"    style {ids[largest.name]} stroke:{ORIGINAL.color},stroke-width:3px")
    return "\n".join(lines)


def describe_model_diagram(profile: ModelProfile) -> str:
    """Caption: the block that holds most of the parameters."""
    blocks = [block for block in profile.blocks if block.cost.parameters]
    if not blocks:
        return "This model has no parameters."
    largest = max(blocks, key=lambda block: block.cost.parameters)
    share = percent(largest.cost.parameters / profile.cost.parameters, 0)
    return (
        f"Training form: {share} of {count(profile.cost.parameters)} parameters in {plural(len(blocks), 'block')} are in "
        f"{largest.name} ({words(largest.module)}), outlined."
    )


def words(module: str) -> str:
    """The name of a class as words: "FieldEmbedding" -> "field embedding", "InnerProductFM" -> "inner product FM"."""
    parts = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+", module)
    return " ".join(part if len(part) > 1 and part.isupper() else part.lower() for part in parts)


def _label(block: BlockProfile, layers: Sequence[LayerProfile]) -> list[str]:
    if block.kind == "fields":
        return ["fields", block.module]
    size = [f"{count(block.cost.parameters)} parameters"] if block.cost.parameters else []
    if block.kind == "logit":
        return ["logit", *size]
    inner = [layer for layer in layers if layer.layer_name != block.name]
    shown = sorted(inner, key=lambda layer: -layer.parameters)[:MAX_LINES] if len(inner) > MAX_LINES else inner
    named = [_layer_line(layer) for layer in shown]
    if len(inner) > len(shown):
        named.append(f"and {len(inner) - len(shown)} more")
    return [f"{block.name} \N{MIDDLE DOT} {words(block.module)}", *size, *named]


def _layer_line(layer: LayerProfile) -> str:
    if layer.kind == "other" or not layer.in_features:
        return f"{layer.layer_name} \N{MIDDLE DOT} {count(layer.parameters)}"
    join = "\N{MULTIPLICATION SIGN}" if layer.kind == "embedding" else "\N{RIGHTWARDS ARROW}"
    return f"{layer.layer_name} \N{MIDDLE DOT} {layer.in_features} {join} {layer.out_features}"


def _escape(text: str) -> str:
    """`text` with every character that Mermaid or HTML could interpret replaced by an entity."""
    return re.sub(r"[^\w .,\-\u00b7\u2192\u00d7]", lambda found: f"#{ord(found[0])};", text)
