"""The twin of a model: a copy of its module tree over the same parameters and buffers, with fast layers in place of plain ones.

The model itself is never touched: its mode, its hooks and its forward stay, so any number of threads may predict with it while
others read it. A layer is replaced only where its class, and that of its tables, is exactly one that has a twin class; everything
else runs as it is.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn

from ctrlab.engines.fast.attention import FastFieldAttention
from ctrlab.engines.fast.bilinear import FastPairInteraction
from ctrlab.engines.fast.context import FastContext, compiled_for, is_hooked
from ctrlab.engines.fast.cross import FastCrossNetwork, FastGatedCrossNetwork, FastMatrixCrossNetwork
from ctrlab.engines.fast.interactions import FastBiInteraction, FastInnerProductFM
from ctrlab.engines.fast.linear import FastLinear, Operand, plain
from ctrlab.engines.fast.logarithmic import FastLogarithmicInteraction
from ctrlab.engines.fast.tables import FastFieldEmbedding, FastFusedTable, FastLookupTable
from ctrlab.engines.trees import copy_tree
from ctrlab.models.afn import AFN, AFNPlus, LogarithmicInteraction
from ctrlab.models.autoint import FieldAttention
from ctrlab.models.base import CTRModel
from ctrlab.models.dcnv2 import MatrixCrossNetwork
from ctrlab.models.fibinet import FiBiNET, PairInteraction
from ctrlab.models.gdcn import GatedCrossNetwork
from ctrlab.models.layers import CrossNetwork, FieldEmbedding, FusedTable, InnerProductFM, LookupTable
from ctrlab.models.nfm import BiInteraction

M = TypeVar("M", bound=nn.Module)

#: {class of a layer: the subclass that computes the same faster}.
TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: FastLinear,
    LookupTable: FastLookupTable,
    FusedTable: FastFusedTable,
    FieldEmbedding: FastFieldEmbedding,
    InnerProductFM: FastInnerProductFM,
    BiInteraction: FastBiInteraction,
    CrossNetwork: FastCrossNetwork,
    MatrixCrossNetwork: FastMatrixCrossNetwork,
    GatedCrossNetwork: FastGatedCrossNetwork,
    FieldAttention: FastFieldAttention,
    LogarithmicInteraction: FastLogarithmicInteraction,
    PairInteraction: FastPairInteraction,
}
#: Twin classes that take an `Operand` as their input.
_TAKE_OPERANDS = tuple(TWINS[layer] for layer in TWINS if layer not in (LookupTable, FusedTable, FieldEmbedding))
#: {architecture: (an interaction, the MLP that alone reads it)}.
_INTERACTIONS: dict[type[nn.Module], tuple[str, str]] = {
    AFN: ("logarithm", "mlp"),
    AFNPlus: ("logarithm", "mlp"),
    FiBiNET: ("interaction", "mlp"),
}


def twin_of(model: M, context: FastContext) -> M:
    """The twin, in the mode that the model is in; of a model of other numbers than float32 a mere copy."""
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        return copy_tree(model)
    twin = copy_tree(model, TWINS, _has_twin, context=context)
    _fuse_linears(twin)
    # A hook may ask for the vectors, or for their gradient: where there is any, all layers read plain tensors.
    if isinstance(twin, CTRModel) and not any(map(is_hooked, twin.modules())):
        _join_interaction(twin)
        _join_look_ups(twin)
    return twin


def _has_twin(module: nn.Module) -> bool:
    """Whether the compiled loops take an instance of a class in `TWINS`: its numbers, and tables that nothing has replaced."""
    if isinstance(module, FieldEmbedding):
        return type(module.categorical) is FusedTable and _has_twin(module.categorical)
    if isinstance(module, FusedTable) and type(module.table) is not LookupTable:
        return False
    return all(map(compiled_for, module.parameters()))


def _fuse_linears(twin: nn.Module) -> None:
    """In every `nn.Sequential` give a linear layer the ReLU right after it to apply, unless one of them is hooked."""
    for sequence in list(twin.modules()):
        if not isinstance(sequence, nn.Sequential):
            continue
        layers = list(sequence)
        for place, layer in enumerate(layers):
            if type(layer) is not FastLinear or is_hooked(layer):
                continue
            relu = place + 1 < len(layers) and type(layers[place + 1]) is nn.ReLU and not is_hooked(layers[place + 1])
            following = [other for other in layers[place + 1 + relu :] if not isinstance(other, nn.Dropout)]
            layer.fuse(relu=relu, before_linear=bool(following) and type(following[0]) is FastLinear)
            if relu:
                sequence[place + 1] = nn.Identity()


def _join_interaction(twin: CTRModel) -> None:
    """Compute an interaction and the linear layer that reads it as one, where nothing in them was replaced."""
    names = _INTERACTIONS.get(type(twin))
    if names is None or (getattr(twin, "raw_values", False) and twin.schema.value_names):
        return
    interaction, reader = (twin.get_submodule(name) for name in names)
    if not (isinstance(reader, nn.Sequential) and type(reader[0]) is FastLinear):
        return
    if isinstance(interaction, FastPairInteraction):
        interaction.joins = all(type(layer) is FastLinear and layer.bias is None for layer in interaction.bilinear.maps)
    elif isinstance(interaction, FastLogarithmicInteraction):
        norm = interaction.exp_norm
        interaction.joins = type(interaction.powers) is FastLinear and type(norm) is nn.BatchNorm1d and norm.momentum is not None


def _join_look_ups(twin: CTRModel) -> None:
    """Let embeddings whose readers are all known hand them the look-up itself."""
    for name, readers in twin.embedding_readers.items():
        embedding = twin.get_submodule(name)
        if type(embedding) is FastFieldEmbedding:
            embedding.joins = True
            for reader in map(twin.get_submodule, readers):
                embedding.with_pairs |= isinstance(reader, (FastInnerProductFM, FastBiInteraction))
                _read_operands(reader)


def _read_operands(reader: nn.Module) -> None:
    """Have a reader's first layer take operands: by itself, or as the tensor that they stand for."""
    while isinstance(reader, nn.Sequential) and type(reader).forward is nn.Sequential.forward and len(reader):
        reader = reader[0]
    if not isinstance(reader, _TAKE_OPERANDS):
        # Of the twin alone: the hooks of the model itself are another dict.
        reader._forward_pre_hooks = type(reader._forward_pre_hooks)(reader._forward_pre_hooks)
        reader.register_forward_pre_hook(_as_tensors)


def _as_tensors(module: nn.Module, inputs: tuple[Tensor | Operand, ...]) -> tuple[Tensor, ...]:
    return tuple(map(plain, inputs))
