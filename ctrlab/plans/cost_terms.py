"""The terms of a prediction as plain JSON types, for a page that adds them up while a slider moves; loads without torch.

What `plans.cost_prediction.predict` computes from a profile, spectra and a spec is determined by these terms and the ranks.
`ui/assets/plan_costs.js` adds them up in the browser; a test compares both for drawn models, specs and ranks.
"""

import dataclasses
from typing import Any

from ctrlab.models.profile import Cost, EmbeddingProfile, LayerProfile, ModelProfile, ReaderProfile
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.ranks import Spectra, pays
from ctrlab.plans.sensitivity import LayerSensitivity, Sensitivity
from ctrlab.plans.serving_forms import MIN_QUANTIZED_WEIGHTS, ServingForms
from ctrlab.plans.shared_basis import shared_variance_losses

Terms = dict[str, Any]


def cost_terms(profile: ModelProfile, spec: CompressionSpec) -> Terms:
    """All that the costs of any plan follow from, the ranks of `spec` aside.

    A cost is a list: parameters of tables, dense parameters, bytes of tables, dense bytes, MACs per row. A layer is referred to
    by its number in `layers`, the compressible ones; any other is -1.
    """
    dense = ServingForms.of(profile, {}, spec)
    original = dataclasses.replace(dense, precision="float32")
    numbers = {layer.layer_name: number for number, layer in enumerate(profile.compressible)}
    return {
        "element_bytes": profile.element_bytes,
        "precision": spec.precision,
        "least_quantized": MIN_QUANTIZED_WEIGHTS,
        "prelu": spec.bottleneck == "prelu",
        "merges": spec.bottleneck == "none",
        "shared": spec.basis == "shared",
        "keeps_latents": dense.method.keeps_latents,
        "explicit_fixed": as_list(dense.explicit_fixed()),
        "folded_fixed": as_list(dense.folded_fixed()),
        "original": as_list(original.cheaper()),
        "layers": [_layer(layer, dense) for layer in profile.compressible],
        "embeddings": [_embedding(profile, embedding, numbers) for embedding in profile.embeddings],
    }


def loss_terms(profile: ModelProfile, spectra: Spectra, sensitivity: Sensitivity | None, spec: CompressionSpec) -> Terms:
    """Variance lost, loss of AUC and increase of log loss of each compressible layer, by rank.

    `variance` has for each layer an array (width,), by ranks from 1; null for a layer without a spectrum, and as a whole for a
    method that does not project outputs. `shared_variance` has the same of the tables in one basis. `sensitivity` is null where
    the method's losses are not those of truncation by AFM.
    """
    method = ServingForms.of(profile, {}, spec).method
    variance = [_variance(layer, spectra) for layer in profile.compressible] if method.projects_outputs else None
    predicts = sensitivity is not None and method.projects_outputs and method.keeps_latents
    return {
        "variance": variance,
        "shared_variance": _shared_variance(profile, spectra) if variance is not None and spec.basis == "shared" else None,
        "sensitivity": _sensitivities(profile, sensitivity) if sensitivity is not None and predicts else None,
    }


def as_list(cost: Cost) -> list[int]:
    """The five numbers of a cost, in the order of its fields."""
    return [cost.parameters_tables, cost.parameters_dense, cost.bytes_tables, cost.bytes_dense, cost.macs]


def _layer(layer: LayerProfile, dense: ServingForms) -> Terms:
    """`reduced`: costs of a table in the form of the method, by ranks from 1 on; null where it is latents."""
    of_method = layer.kind == "embedding" and not dense.method.keeps_latents
    ranks = (rank for rank in range(1, layer.out_features + 1) if pays(layer, rank))
    return {
        "name": layer.layer_name,
        "table": layer.kind == "embedding",
        "inputs": layer.in_features,
        "width": layer.out_features,
        "positions": layer.positions,
        "parameters": layer.parameters,
        "break_even": layer.break_even,
        "reduced": [as_list(dense.reduced_table(layer, rank)) for rank in ranks] if of_method else None,
    }


def _embedding(profile: ModelProfile, embedding: EmbeddingProfile, numbers: dict[str, int]) -> Terms:
    own = sum((reader.own for reader in embedding.readers), Cost())
    return {
        "width": embedding.embed_dim,
        "vectors": embedding.num_vectors,
        "values": embedding.num_values,
        "raw_values": embedding.raw_values,
        "list_places": embedding.list_places,
        "foldable": embedding.foldable,
        "own": as_list(own),
        "tables": [
            {"ids": layer.in_features, "width": layer.out_features, "layer": numbers.get(layer.layer_name, -1)}
            for layer in profile.layers
            if layer.embedding == embedding.name
        ],
        "readers": [_reader(profile, reader, numbers) for reader in embedding.readers],
    }


def _reader(profile: ModelProfile, reader: ReaderProfile, numbers: dict[str, int]) -> Terms:
    first = (profile.by_name[name] for name in reader.first_layers)
    return {
        "own": as_list(reader.own),
        "parameters": [reader.parameters_base, reader.parameters_slope],
        "macs": [reader.macs_base, reader.macs_slope],
        "by_field": reader.by_field,
        "foldable": reader.foldable,
        "rotation_invariant": reader.rotation_invariant,
        "first": [
            {"width": layer.out_features, "positions": layer.positions, "has_bias": layer.has_bias,
             "layer": numbers.get(layer.layer_name, -1)}
            for layer in first
        ],
    }  # fmt: skip


def _variance(layer: LayerProfile, spectra: Spectra) -> list[float] | None:
    spectrum = spectra.get(layer.layer_name)
    return None if spectrum is None else [_short(spectrum.variance_lost(rank)) for rank in range(1, layer.out_features + 1)]


def _shared_variance(profile: ModelProfile, spectra: Spectra) -> list[list[float] | None]:
    found: dict[str, list[float]] = {}
    for embedding in profile.embeddings:
        names = [layer.layer_name for layer in profile.compressible if layer.embedding == embedding.name]
        if names and all(name in spectra for name in names):
            losses = shared_variance_losses([spectra[name] for name in names])
            found |= {name: [_short(share) for share in shares[1:]] for name, shares in losses.items()}
    return [found.get(layer.layer_name) for layer in profile.compressible]


def _sensitivities(profile: ModelProfile, sensitivity: Sensitivity) -> Terms:
    measured = (sensitivity.layers.get(layer.layer_name) for layer in profile.compressible)
    layers = [None if own is None else _sensitivity(own) for own in measured]
    return {"auc": sensitivity.auc, "log_loss": sensitivity.log_loss, "layers": layers}


def _sensitivity(layer: LayerSensitivity) -> Terms:
    """Losses at the measured ranks; between them they are interpolated. Those of AUC are null where they are not measured."""
    known = bool(layer.auc_losses) or not layer.ranks
    return {
        "ranks": list(layer.grid),
        "auc_losses": [_short(loss) for loss in (*layer.auc_losses, 0.0)] if known else None,
        "log_loss_increases": [_short(loss) for loss in (*layer.log_loss_increases, 0.0)],
    }


def _short(share: float) -> float:
    """Seven digits: what is shown has four."""
    return float(f"{share:.7g}")
