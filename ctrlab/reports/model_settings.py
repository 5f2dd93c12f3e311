"""The settings of a compressed model in short: method, ranks, bits."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctrlab.figures.text import plural
from ctrlab.models.profile import ModelProfile
from ctrlab.plans.methods import METHODS
from ctrlab.storage import Artifact

_BITS = {"float32": 32, "int8": 8, "int4": 4}
#: Linear layers that are listed by name; more are counted.
_LISTED = 3


def settings_of(model: Artifact, original: ModelProfile | None) -> dict[str, Any]:
    """method (title), ranks (short), rank_share and bits of a stored model.

    Args:
        original: profile of the model that it was compressed from; without it rank_share is NaN for compressed models.
    """
    compression = model.config.get("compression")
    if not compression:
        return {"method": "", "ranks": "", "rank_share": 1.0, "bits": 32}
    ranks = {entry["layer_name"]: int(entry["rank"]) for entry in compression["plan"]["ranks"]}
    method = compression["method"]
    return {
        "method": METHODS[method].title if method in METHODS else method,
        "ranks": short_ranks(ranks),
        "rank_share": rank_share(ranks, original) if original else np.nan,
        "bits": _BITS.get(compression.get("precision", "float32"), np.nan),
    }


def short_ranks(ranks: Mapping[str, int]) -> str:
    """The ranks of a plan on one line: linear layers by name while they are few, tables counted.

    >>> short_ranks({"mlp.0": 17, "mlp.2": 12, "embedding.site": 3, "embedding.ad": 8})
    'mlp.0 17, mlp.2 12, 2 tables 3 to 8'
    >>> short_ranks({f"mlp.{number}": 5 for number in range(10)}), short_ranks({})
    ('10 layers 5', 'all dense')
    """
    tables = [rank for name, rank in ranks.items() if _is_table(name)]
    layers = {name: rank for name, rank in ranks.items() if not _is_table(name)}
    parts = [f"{name} {rank}" for name, rank in layers.items()]
    if len(layers) > _LISTED:
        parts = [_counted("layer", list(layers.values()))]
    if tables:
        parts.append(_counted("table", tables))
    return ", ".join(parts) or "all dense"


def rank_share(ranks: Mapping[str, int], profile: ModelProfile) -> float:
    """Ranks kept over widths, of all layers that can be compressed; a layer without a rank keeps its width."""
    widths = {layer.layer_name: min(layer.in_features, layer.out_features) for layer in profile.compressible}
    kept = sum(min(ranks.get(name, width), width) for name, width in widths.items())
    return kept / max(1, sum(widths.values()))


def _is_table(name: str) -> bool:
    return re.match(r"(.*\.)?embedding\w*\.", name) is not None


def _counted(noun: str, ranks: Sequence[int]) -> str:
    low, high = min(ranks), max(ranks)
    return f"{plural(len(ranks), noun)} {low if low == high else f'{low} to {high}'}"
