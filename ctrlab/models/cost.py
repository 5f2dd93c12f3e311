"""Measured cost of a module, and the profile from which the cost of any plan is predicted.

MACs per row, the convention: one for each weight of a matrix product (linear layers, projections, cross and numeric weights)
and for each element of an elementwise product that the architecture itself asks for (squares in an FM, x_0 times a scalar in
a cross layer, the scale of batch normalisation; the square, the division and the scale of layer normalisation). A layer that a
row goes through several times, once a field in self-attention or once an element over a list (full, for this count), counts as
often. Additions, biases, activations, look-ups by id and the arithmetic of quantisation (a code's scale and offset) are not
counted. A module that is not known here and does not say `row_macs()` counts one for each of its own parameters. One that keeps
numbers as integers says how many, `num_codes`, and whether they are looked up by id, `codes_are_table`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ctrlab.models.autoint import FieldAttention
from ctrlab.models.base import CTRModel
from ctrlab.models.configs import EmbeddingModelConfig
from ctrlab.models.dataflow import FIELDS, LOGIT, blank_row, blocks_of, trace_flow
from ctrlab.models.inventory import ModelLayer, is_compressed, list_layers
from ctrlab.models.layers import MLP, CrossNetwork, FieldEmbedding, FusedTable, InnerProductFM, LinearTerm, LookupTable
from ctrlab.models.products import InnerProducts
from ctrlab.models.profile import BlockKind, BlockProfile, Cost, EmbeddingProfile, LayerProfile, ModelProfile, ReaderProfile

M = TypeVar("M", bound=nn.Module)
MacsRule = Callable[[Any, Any], int]
#: (model, reader's name) -> its folded cost and the names of the modules it takes the place of; None where it cannot fold.
ReaderRule = Callable[[CTRModel, str], tuple[ReaderProfile, tuple[str, ...]] | None]

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
    return _Meter(model).cost_of(model)


class _Meter:
    """Costs of the parts of one model.

    positions: {layer: how often one row goes through it}, of those that ran.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.positions = layer_positions(model) if isinstance(model, CTRModel) else {}

    def cost_of(self, module: nn.Module) -> Cost:
        """Of `module` with everything inside it."""
        parts = list(module.modules())
        tables = {id(part.weight) for part in parts if isinstance(part, (LookupTable, nn.Embedding))}
        coded_tables = [part for part in parts if _is_coded_table(part)]
        other = [part for part in parts if not _is_coded_table(part)]
        parameters = list(module.parameters())
        in_tables = [parameter for parameter in parameters if id(parameter) in tables]
        dense = [parameter for parameter in parameters if id(parameter) not in tables]
        return Cost(
            parameters_tables=sum(map(torch.numel, in_tables)) + sum(map(_num_codes, coded_tables)),
            parameters_dense=sum(map(torch.numel, dense)) + sum(map(_num_codes, other)),
            bytes_tables=sum(parameter.nbytes for parameter in in_tables) + sum(map(_buffer_bytes, coded_tables)),
            bytes_dense=sum(parameter.nbytes for parameter in dense) + sum(map(_buffer_bytes, other)),
            macs=sum(_own_macs(part, self.model) * self.positions.get(part, 1) for part in parts),
        )


def layer_positions(model: CTRModel) -> dict[nn.Module, int]:
    """{layer: how often one row goes through it}, seen in a forward pass of one blank row with full lists.

    Of linear and normalising layers, and of modules with `per_position`, whose `row_macs` are of one time.
    """
    found: dict[nn.Module, int] = {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        width = module.num_features if isinstance(module, nn.BatchNorm1d) else output.shape[-1]
        found[module] = found.get(module, 0) + output.numel() // width

    modes = {module: module.training for module in model.modules()}
    handles = [module.register_forward_hook(count) for module in model.modules() if _runs_per_position(module)]
    try:
        with torch.no_grad():
            model.eval()(blank_row(model))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return found


def _runs_per_position(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, nn.BatchNorm1d, nn.LayerNorm)) or getattr(module, "per_position", False)


def _buffer_bytes(module: nn.Module) -> int:
    transient = module._non_persistent_buffers_set
    return sum(buffer.nbytes for name, buffer in module.named_buffers(recurse=False) if name not in transient)


def _num_codes(module: nn.Module) -> int:
    """The numbers that a quantised module keeps as integers; 0 of any other."""
    return int(getattr(module, "num_codes", 0))


def _is_coded_table(module: nn.Module) -> bool:
    """Whether these are looked up by id."""
    return bool(getattr(module, "codes_are_table", False))


def _own_macs(module: nn.Module, model: nn.Module) -> int:
    stated = getattr(module, "row_macs", None)
    if stated is not None:
        return int(stated())
    rule = next((_MACS[base] for base in type(module).__mro__ if base in _MACS), None)
    if rule is not None:
        return rule(module, model)
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


@register_reader(nn.Linear)
def _folded_linear(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]]:
    """It reads all vectors side by side."""
    return ReaderProfile(name=name, first_layers=(name,)), (name,)


@register_reader(InnerProducts)
def _inner_products(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]]:
    """One number a pair of fields: nothing to fold, but of latents in a shared basis as good as of vectors."""
    return ReaderProfile(name=name, foldable=False, rotation_invariant=True), (name,)


@register_reader(MLP)
def _folded_mlp(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]]:
    """Only the first layer changes; it is costed by its own rank."""
    return ReaderProfile(name=name, first_layers=(f"{name}.0",)), (f"{name}.0",)


@register_reader(FieldAttention)
def _folded_attention(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]] | None:
    """Its projections take the bases in; an attention that adds the vectors themselves needs them restored."""
    if isinstance(model.get_submodule(name).residual, nn.Identity):
        return None
    projections = attention_projections(model, name)
    return ReaderProfile(name=name, first_layers=projections, by_field=True), projections


def attention_projections(model: CTRModel, name: str) -> tuple[str, ...]:
    """The linear maps of the vectors in the FieldAttention called `name`."""
    parts = ("query", "key", "value", "residual")
    return tuple(f"{name}.{part}" for part in parts if getattr(model.get_submodule(name), part) is not None)


@register_reader(InnerProductFM)
def _folded_fm(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]]:
    """S z + m, and the weights of z and z^2 (compression.readers.fm)."""
    d = cast(EmbeddingModelConfig, model.config).embed_dim
    profile = ReaderProfile(
        name=name, parameters_base=d + 1, parameters_slope=d + 2, macs_base=d, macs_slope=d + 3, rotation_invariant=True
    )
    return profile, (name,)


@register_reader(CrossNetwork)
def _folded_cross(model: CTRModel, name: str) -> tuple[ReaderProfile, tuple[str, ...]] | None:
    """One scalar per cross layer and one for the head (compression.readers.cross); a network without its own head stays."""
    head, cross = getattr(model, f"{name}_head", None), model.get_submodule(name)
    if not isinstance(head, nn.Linear) or head.out_features != 1 or not isinstance(cross, CrossNetwork):
        return None
    n = len(cross.weights) + 1
    return ReaderProfile(name=name, parameters_base=2 * n, parameters_slope=n, macs_base=n, macs_slope=n), (name, f"{name}_head")


def readers_of(model: nn.Module, embedding_name: str) -> tuple[ReaderProfile, ...]:
    """What reads the embedding called `embedding_name`, compressed or not; empty where that is not known."""
    if not isinstance(model, CTRModel):
        return ()
    meter = _Meter(model)
    return tuple(_reader_profile(meter, model, name) for name in model.embedding_readers.get(embedding_name, ()))


def _embedding_profiles(model: CTRModel) -> tuple[EmbeddingProfile, ...]:
    return tuple(
        EmbeddingProfile(
            name=name,
            embed_dim=module.embed_dim,
            num_vectors=module.num_vectors,
            num_values=len(module.schema.value_names),
            raw_values=module.raw_values,
            list_places=module.schema.list_width,
            readers=readers_of(model, name),
        )
        for name, module in model.named_modules()
        if isinstance(module, FieldEmbedding)
    )


def _reader_profile(meter: _Meter, model: CTRModel, name: str) -> ReaderProfile:
    rule = next((_READERS[base] for base in type(model.get_submodule(name)).__mro__ if base in _READERS), None)
    found = rule(model, name) if rule is not None else None
    if found is None:
        return ReaderProfile(name=name, foldable=False)
    profile, replaced = found
    compressible = {layer.module_name for layer in list_layers(model) if layer.kind == "linear" and layer.skip_reason is None}
    own = sum((meter.cost_of(model.get_submodule(part)) for part in replaced if part not in compressible), Cost())
    return dataclasses.replace(profile, own=own)


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
    compressed = is_compressed(model)
    meter = _Meter(model)
    cost = meter.cost_of(model)
    embeddings = () if compressed else _embedding_profiles(model)
    replaced = sum((reader.own for embedding in embeddings for reader in embedding.readers), Cost())
    return ModelProfile(
        architecture=type(model).__name__,
        layers=tuple(_layer_profile(layer, model, meter) for layer in list_layers(model)),
        cost=cost,
        folded_fixed=cost - replaced - _variable_cost(model, meter),
        embeddings=embeddings,
        element_bytes=next(model.parameters()).element_size(),
        compressed=compressed,
        blocks=_block_profiles(model, meter),
    )


def _block_profiles(model: CTRModel, meter: _Meter) -> tuple[BlockProfile, ...]:
    """The fields, the blocks that run, and the logit, which also has what parameters lie in no block."""
    blocks, flow = blocks_of(model), trace_flow(model)
    sums = {name: meter.cost_of(block) for name, block in blocks.items() if name in flow}
    inner = [
        BlockProfile(name=name, kind=_kind(block), module=_class_name(block), cost=sums[name], sources=flow[name])
        for name, block in blocks.items()
        if name in flow
    ]
    left = meter.cost_of(model) - sum(sums.values(), Cost())
    schema = model.schema if model.reads_lists else model.schema.without_lists()
    counts = {"categorical": len(schema.field_names), "numeric": len(schema.value_names), "list": len(schema.lists)}
    fields = ", ".join(f"{number} {kind}" for kind, number in counts.items() if number)
    return (
        BlockProfile(name=FIELDS, kind="fields", module=fields),
        *inner,
        BlockProfile(name=LOGIT, kind="logit", module="", cost=left, sources=flow[LOGIT]),
    )


def _class_name(block: nn.Module) -> str:
    """Of a plain sequence of modules of one class, theirs."""
    classes = {type(part).__name__ for part in block.children()} if type(block) is nn.Sequential else set()
    return classes.pop() if len(classes) == 1 else type(block).__name__


def _kind(block: nn.Module) -> BlockKind:
    parts = list(block.modules())
    if any(isinstance(part, (FieldEmbedding, LookupTable, nn.Embedding)) or _is_coded_table(part) for part in parts):
        return "tables"
    return "layers" if isinstance(block, (nn.Linear, MLP)) else "interaction"


def _layer_profile(layer: ModelLayer, model: CTRModel, meter: _Meter) -> LayerProfile:
    module = model.get_submodule(layer.module_name)
    uses = module.schema.uses_of(layer.field) if isinstance(module, FieldEmbedding) and layer.field is not None else 1
    return LayerProfile(
        layer_name=layer.layer_name,
        kind=layer.kind,
        in_features=layer.in_features,
        out_features=layer.out_features,
        parameters=layer.parameters,
        has_bias=layer.has_bias,
        embedding=layer.module_name if layer.kind == "embedding" else "",
        positions=meter.positions.get(module, 1) if layer.kind == "linear" else uses,
        fields=_fields_of(module, layer.module_name, model),
        skip_reason=layer.skip_reason,
    )


def _fields_of(module: nn.Module, name: str, model: CTRModel) -> int:
    """How many fields share a fused table outside the embeddings."""
    owner = model.get_submodule(name.rpartition(".")[0]) if isinstance(module, LookupTable) else None
    return len(owner.field_dims) if isinstance(owner, FusedTable) else 0


def _variable_cost(model: CTRModel, meter: _Meter) -> Cost:
    """What the serving form drops or what a plan can change, the readers set aside: compressible layers, embeddings, norms."""
    linear = [layer.module_name for layer in list_layers(model) if layer.kind == "linear" and layer.skip_reason is None]
    norms = [sequence[position] for sequence, position in foldable_norms(model)]
    embeddings = [module for module in model.modules() if isinstance(module, FieldEmbedding)]
    parts = [*(model.get_submodule(name) for name in linear), *norms, *embeddings]
    return sum((meter.cost_of(part) for part in parts), Cost())
