"""Multiply-accumulates (MACs) that one row costs in a module, without its children.

The convention: one MAC for each weight of a matrix product (linear layers, projections, cross and numeric weights) and for each
element of an elementwise product that the architecture itself defines (squares in an FM, x_0 times a scalar in a cross layer,
the scale of batch normalisation; the square, the division and the scale of layer normalisation). A layer that a row passes
through several times, once per field in self-attention or once per element of a list (taken as full), counts that often.
Additions, biases, activations, look-ups by id and dequantisation (a code times its scale plus an offset) are not counted.

A module of an unknown class that has no method `row_macs()` counts one MAC for each of its own parameters.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from ctrlab.models.configs import EmbeddingModelConfig
from ctrlab.models.layers import CrossNetwork, FieldEmbedding, InnerProductFM, LinearTerm, LookupTable
from ctrlab.models.products import InnerProducts

#: rule(module, whole model) -> MACs of the module itself.
MacsRule = Callable[[Any, Any], int]

_MACS: dict[type[nn.Module], MacsRule] = {
    nn.Linear: lambda module, _: module.in_features * module.out_features,
    LookupTable: lambda module, _: 0,
    nn.Embedding: lambda module, _: 0,
    nn.BatchNorm1d: lambda module, _: module.num_features,
    nn.LayerNorm: lambda module, _: 3 * module.normalized_shape[-1],
    nn.PReLU: lambda module, _: 0,
    FieldEmbedding: lambda module, _: module.numeric.numel(),
    LinearTerm: lambda module, _: module.numeric.numel(),
    CrossNetwork: lambda module, _: 2 * module.weights.numel(),
    InnerProducts: lambda module, model: module.num_pairs * model.embedding.embed_dim,
    InnerProductFM: lambda _, model: (_num_vectors(model) + 1) * model.embedding.embed_dim,
}


def own_macs(module: nn.Module, model: nn.Module) -> int:
    """MACs of one pass of one row through `module`, a part of `model`, its children not counted."""
    stated = getattr(module, "row_macs", None)
    if stated is not None:
        return int(stated())
    rule = next((_MACS[base] for base in type(module).__mro__ if base in _MACS), None)
    if rule is not None:
        return rule(module, model)
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


def _num_vectors(model: Any) -> int:
    """M: the embedding vectors a row of `model`."""
    raw = isinstance(model.config, EmbeddingModelConfig) and model.config.numeric_fields == "raw"
    return len(model.schema.field_names) if raw else model.schema.num_fields
