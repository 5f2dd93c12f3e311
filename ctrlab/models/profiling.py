"""`profile_model`: the profile from which the cost of any plan is predicted, made from a live model in one forward pass."""

from collections.abc import Sequence

from torch import nn

from ctrlab.models.base import CTRModel
from ctrlab.models.cost import CostMeter, is_coded_table
from ctrlab.models.dataflow import FIELDS, LOGIT, Trace, blocks_of, trace
from ctrlab.models.folding import foldable_norms, readers_of
from ctrlab.models.inventory import ModelLayer, is_compressed, list_layers
from ctrlab.models.layers import MLP, FieldEmbedding, FusedTable, LookupTable
from ctrlab.models.profile import BlockKind, BlockProfile, Cost, EmbeddingProfile, LayerProfile, ModelProfile


def profile_model(model: CTRModel) -> ModelProfile:
    """Everything about `model` that planning and display need, as plain data.

    The model runs once, on one blank row in evaluation mode; its modes, hooks and gradients are unchanged.
    """
    found, layers, compressed = trace(model), list_layers(model), is_compressed(model)
    meter = CostMeter(model, found.positions)
    cost = meter.cost_of(model)
    embeddings = () if compressed else _embedding_profiles(model, meter)
    replaced = sum((reader.own for embedding in embeddings for reader in embedding.readers), Cost())
    return ModelProfile(
        architecture=type(model).__name__,
        layers=tuple(_layer_profile(layer, model, meter) for layer in layers),
        cost=cost,
        folded_fixed=cost - replaced - _variable_cost(model, layers, meter),
        embeddings=embeddings,
        element_bytes=next(model.parameters()).element_size(),
        compressed=compressed,
        blocks=_block_profiles(model, found, meter, cost),
    )


def _embedding_profiles(model: CTRModel, meter: CostMeter) -> tuple[EmbeddingProfile, ...]:
    return tuple(
        EmbeddingProfile(
            name=name,
            embed_dim=module.embed_dim,
            num_vectors=module.num_vectors,
            num_values=len(module.schema.value_names),
            raw_values=module.raw_values,
            list_places=module.schema.list_width,
            readers=readers_of(model, name, meter),
        )
        for name, module in model.named_modules()
        if isinstance(module, FieldEmbedding)
    )


def _layer_profile(layer: ModelLayer, model: CTRModel, meter: CostMeter) -> LayerProfile:
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
    """The number of fields that share a fused table outside the embeddings."""
    owner = model.get_submodule(name.rpartition(".")[0]) if isinstance(module, LookupTable) else None
    return len(owner.field_dims) if isinstance(owner, FusedTable) else 0


def _variable_cost(model: CTRModel, layers: Sequence[ModelLayer], meter: CostMeter) -> Cost:
    """What folding drops or a plan can change, readers excepted: compressible linear layers, embeddings, batch normalisations."""
    linear = [layer.module_name for layer in layers if layer.kind == "linear" and layer.skip_reason is None]
    norms = [sequence[position] for sequence, position in foldable_norms(model)]
    embeddings = [module for module in model.modules() if isinstance(module, FieldEmbedding)]
    parts = [*(model.get_submodule(name) for name in linear), *norms, *embeddings]
    return sum((meter.cost_of(part) for part in parts), Cost())


def _block_profiles(model: CTRModel, found: Trace, meter: CostMeter, cost: Cost) -> tuple[BlockProfile, ...]:
    """The fields, the blocks that run, and the logit, which also has the parameters that lie in no block."""
    flow = found.sources
    blocks = {name: block for name, block in blocks_of(model).items() if name in flow}
    sums = {name: meter.cost_of(block) for name, block in blocks.items()}
    inner = [
        BlockProfile(name=name, kind=_kind(block), module=_class_name(block), cost=sums[name], sources=flow[name])
        for name, block in blocks.items()
    ]
    left = cost - sum(sums.values(), Cost())
    schema = model.schema if model.reads_lists else model.schema.without_lists()
    counts = {"categorical": len(schema.field_names), "numeric": len(schema.value_names), "list": len(schema.lists)}
    fields = ", ".join(f"{number} {kind}" for kind, number in counts.items() if number)
    return (
        BlockProfile(name=FIELDS, kind="fields", module=fields),
        *inner,
        BlockProfile(name=LOGIT, kind="logit", module="", cost=left, sources=flow[LOGIT]),
    )


def _class_name(block: nn.Module) -> str:
    """The block's class; of a plain sequence of modules of one class, that class."""
    classes = {type(part).__name__ for part in block.children()} if type(block) is nn.Sequential else set()
    return classes.pop() if len(classes) == 1 else type(block).__name__


def _kind(block: nn.Module) -> BlockKind:
    parts = list(block.modules())
    if any(isinstance(part, (FieldEmbedding, LookupTable, nn.Embedding)) or is_coded_table(part) for part in parts):
        return "tables"
    return "layers" if isinstance(block, (nn.Linear, MLP)) else "interaction"
