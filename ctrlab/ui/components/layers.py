"""A table of the compressible layers with shape, ranks and break-even, for the Spectra and Compress pages."""

import math
from typing import TYPE_CHECKING

from ctrlab.services.workspace import Workspace
from ctrlab.ui import cache, format

if TYPE_CHECKING:
    import pandas as pd

    from ctrlab.models.profile import LayerProfile

_TIMES = "\N{MULTIPLICATION SIGN}"
#: Number of singular values in the small chart of each layer.
_HEAD = 24


def shape(layer: "LayerProfile") -> str:
    """Shape as text: '400 x 400' for a linear layer (inputs, outputs), '12.3 k x 16' for a table (ids, width)."""
    if layer.kind == "embedding":
        return f"{format.count(layer.in_features)} {_TIMES} {layer.out_features}"
    return f"{layer.in_features} {_TIMES} {layer.out_features}"


@cache.per_workspace(max_entries=16)
def layer_table(workspace: Workspace, model_id: str, spectra_id: str) -> "pd.DataFrame":
    """One row a compressible layer with a spectrum, linear layers first. Shared between sessions: do not change it.

    Columns: layer, kind, shape (text), width, parameters, k90, k95, k99, effective_rank, break_even (the lowest rank that
    stays dense), head (list: the first singular values divided by the largest).
    """
    import pandas as pd

    spectra, profile = cache.layer_spectra(workspace, spectra_id), cache.model_profile(workspace, model_id)
    layers = sorted(
        (layer for layer in profile.compressible if layer.layer_name in spectra), key=lambda layer: layer.kind != "linear"
    )
    rows = []
    for layer in layers:
        spectrum = spectra[layer.layer_name]
        values = spectrum.singular_values
        rows.append(
            {
                "layer": layer.layer_name,
                "kind": layer.kind,
                "shape": shape(layer),
                "width": spectrum.width,
                "parameters": layer.parameters,
                **{f"k{percent}": spectrum.rank_for(percent / 100) for percent in (90, 95, 99)},
                "effective_rank": spectrum.effective_rank,
                "break_even": math.ceil(layer.break_even),
                "head": (values[:_HEAD] / (values[0] or 1.0)).tolist(),
            }
        )
    return pd.DataFrame(rows)
