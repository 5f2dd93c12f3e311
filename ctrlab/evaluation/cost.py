"""Measured cost of a module, and the profile from which the cost of any plan is predicted.

MACs per row, the convention: one for each weight of a matrix product (linear layers, projections, cross and numeric weights)
and for each element of an elementwise product that the architecture itself asks for (squares in an FM, x_0 times a scalar in
a cross layer, the scale of batch normalisation). What runs over a list counts for each of its places, as if the list were full.
Additions, biases, activations and look-ups by id are not counted. A module
that is not known here and does not say `row_macs()` counts one for each of its own parameters.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from torch import nn

from ctrlab.evaluation.profile import Cost, LayerProfile, ModelProfile, ReaderProfile
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import EmbeddingModelConfig
from ctrlab.models.inventory import is_compressed, list_layers, row_uses
from ctrlab.models.layers import MLP, CrossNetwork, FieldEmbedding, InnerProductFM, LinearTerm, LookupTable

M = TypeVar("M", bound=nn.Module)
MacsRule = Callable[[Any, Any], int]
#: (model, reader's name) -> its folded cost and the names of the modules it takes the place of; None where it cannot fold.
ReaderRule = Callable[[CTRModel, str], tuple[ReaderProfile, tuple[str, ...]] | None]

_MACS: dict[type[nn.Module], MacsRule] = {
    nn.Linear: lambda module, _: module.in_features * module.out_features,
    LookupTable: lambda module, _: 0,
    nn.Embedding: lambda module, _: 0,
    nn.BatchNorm1d: lambda module, _: module.num_features,
    nn.GRU: lambda module, _: sum(weight.numel() for weight in module.parameters() if weight.ndim == 2),
    nn.PReLU: lambda module, _: 0,
    FieldEmbedding: lambda module, _: module.numeric.numel(),
    LinearTerm: lambda module, _: module.numeric.numel(),
    CrossNetwork: lambda module, _: 2 * module.weights.numel(),
    InnerProductFM: lambda _, model: (_num_vectors(model) + 1) * model.config.embed_dim,
}

_READERS: dict[type[nn.Module], ReaderRule] = {}


def _num_vectors(model: CTRModel) -> int:
    """M: the embedding vectors a row of `model`."""
    raw = isinstance(model.config, EmbeddingModelConfig) and model.config.numeric_fields == "raw"
    return len(model.schema.field_names) if raw else model.schema.num_fields


def register_macs(module_class: type[nn.Module], rule: MacsRule) -> None:
    """Teach the MACs convention a module: rule(module, whole model) -> MACs of the module itself, without its children."""
    _MACS[module_class] = rule


def register_reader(module_class: type[nn.Module]) -> Callable[[ReaderRule], ReaderRule]:
    """Decorator: the folded cost of a reader of the embedding; its folding rule is registered in `compression.readers`."""

    def file(rule: ReaderRule) -> ReaderRule:
        _READERS[module_class] = rule
        return rule

    return file


def measure_cost(model: nn.Module) -> Cost:
    """Parameters, bytes and MACs of what is really in `model`."""
    return _cost_of(model, model)


def _cost_of(module: nn.Module, model: nn.Module) -> Cost:
    tables = {id(part.weight) for part in module.modules() if isinstance(part, (LookupTable, nn.Embedding))}
    parameters = list(module.parameters())
    in_tables = [parameter for parameter in parameters if id(parameter) in tables]
    dense = [parameter for parameter in parameters if id(parameter) not in tables]
    return Cost(
        parameters_tables=sum(parameter.numel() for parameter in in_tables),
        parameters_dense=sum(parameter.numel() for parameter in dense),
        bytes_tables=sum(parameter.nbytes for parameter in in_tables),
        bytes_dense=sum(parameter.nbytes for parameter in dense) + sum(_buffer_bytes(part) for part in module.modules()),
        macs=sum(_own_macs(part, model) for part in module.modules()),
    )


def _buffer_bytes(module: nn.Module) -> int:
    transient = module._non_persistent_buffers_set
    return sum(buffer.nbytes for name, buffer in module.named_buffers(recurse=False) if name not in transient)


def _own_macs(module: nn.Module, model: nn.Module) -> int:
    return row_uses(module) * _macs_once(module, model)


def _macs_once(module: nn.Module, model: nn.Module) -> int:
    stated = getattr(module, "row_macs", None)
    if stated is not None:
        return int(stated())
    rule = next((_MACS[base] for base in type(module).__mro__ if base in _MACS), None)
    if rule is not None:
        return rule(module, model)
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


@register_reader(MLP)
def _folded_mlp(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]] | None:
    """Only the first layer changes; it is costed by its own rank."""
    return ReaderProfile(name=name, first_layer=f"{name}.0"), (f"{name}.0",)


@register_reader(InnerProductFM)
def _folded_fm(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]] | None:
    """S z + m, and the weights of z and z^2 (compression.readers.fm)."""
    d = cast(EmbeddingModelConfig, model.config).embed_dim
    return ReaderProfile(name=name, parameters_base=d + 1, parameters_slope=d + 2, macs_base=d, macs_slope=d + 3), (name,)


@register_reader(CrossNetwork)
def _folded_cross(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]] | None:
    """One scalar per cross layer and one for the head (compression.readers.cross); a network without its own head stays."""
    head, cross = getattr(model, f"{name}_head", None), model.get_submodule(name)
    if not isinstance(head, nn.Linear) or head.out_features != 1 or not isinstance(cross, CrossNetwork):
        return None
    n = len(cross.weights) + 1
    return ReaderProfile(name=name, parameters_base=2 * n, parameters_slope=n, macs_base=n, macs_slope=n), (name, f"{name}_head")


def folded_readers(model: nn.Module) -> tuple[tuple[ReaderProfile, ...], tuple[str, ...]]:
    """How the readers of the embedding would fold, and the modules they replace; empty when one of them cannot."""
    found = []
    for name in getattr(model, "embedding_readers", ()):
        rule = next((_READERS[base] for base in type(model.get_submodule(name)).__mro__ if base in _READERS), None)
        folded = rule(model, name) if rule is not None and isinstance(model, CTRModel) else None
        if folded is None:
            return (), ()
        found.append(folded)
    return tuple(reader for reader, _ in found), tuple(name for _, names in found for name in names)


def foldable_norms(model: nn.Module) -> Iterator[tuple[nn.Sequential, int]]:
    """(sequence, position) of each batch normalisation that stands right behind an affine layer, hence folds into it."""
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            for position, part in enumerate(module):
                if position and isinstance(part, nn.BatchNorm1d) and _takes_norm(module[position - 1]):
                    yield module, position


def _takes_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or hasattr(module, "scale_output_")


def profile_model(model: CTRModel) -> ModelProfile:
    """Everything about `model` that planning and display need, as plain data."""
    layers = list_layers(model)
    compressed = is_compressed(model)
    readers, replaced = folded_readers(model) if not compressed else ((), ())
    cost = measure_cost(model)
    schema = model.schema
    return ModelProfile(
        architecture=type(model).__name__,
        layers=tuple(
            LayerProfile(
                layer_name=layer.layer_name,
                kind=layer.kind,
                in_features=layer.in_features,
                out_features=layer.out_features,
                parameters=layer.parameters,
                has_bias=layer.has_bias,
                row_uses=layer.row_uses,
                skip_reason=layer.skip_reason,
            )
            for layer in layers
        ),
        cost=cost,
        folded_fixed=cost - _variable_cost(model, replaced),
        readers=readers,
        num_values=len(schema.value_names) if readers else 0,
        element_bytes=next(model.parameters()).element_size(),
        compressed=compressed,
    )


def _variable_cost(model: CTRModel, replaced: tuple[str, ...]) -> Cost:
    """What the serving form drops or what a plan can change: compressible layers, replaced readers, norms, numeric vectors."""
    variable = Cost()
    linear = {layer.module_name for layer in list_layers(model) if layer.kind == "linear" and layer.skip_reason is None}
    for name in linear | set(replaced):
        variable += _cost_of(model.get_submodule(name), model)
    for sequence, position in foldable_norms(model):
        variable += _cost_of(sequence[position], model)
    for module in model.modules():
        if isinstance(module, FieldEmbedding):
            variable += _cost_of(module.categorical, model)
            if replaced:
                variable += _cost_of(module, model) - _cost_of(module.categorical, model)
    return variable
