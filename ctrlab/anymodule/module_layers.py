"""The compressible layers of any `nn.Module`, and the reason why each other layer with a matrix cannot be compressed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ctrlab.anymodule.convolution import CONVOLUTIONS, is_transposed
from ctrlab.anymodule.unfused import fused_reason, unfused_form
from ctrlab.errors import CompressionError
from ctrlab.models.inventory import linear_skip_reason
from ctrlab.models.profile import Cost, LayerProfile, ModelProfile

#: (qualified name, module) -> whether to consider it.
Filter = Callable[[str, nn.Module], bool]
_TORCHSCRIPT = "TorchScript, whose layers cannot be replaced; compress the module as it was before scripting or tracing"
_QUANTISED = ("torch.ao.nn.quantized", "torch.nn.quantized", "torchao.")
_LAZY = "it has no weights yet"


@dataclass(frozen=True, eq=False, kw_only=True)
class ForeignLayer:
    """A linear layer or a table of any module.

    A bilinear layer is a linear one of all products of its two inputs, a convolution one of all that its kernel covers.

    slots: every qualified name of it in the module; a layer used in several places is one layer.
    skip_reason: why it cannot be compressed; None where it can.
    """

    layer_name: str
    kind: Literal["linear", "embedding"]
    module: nn.Module
    in_features: int
    out_features: int
    slots: tuple[str, ...]
    skip_reason: str | None = None

    def profile(self) -> LayerProfile:
        """The layer's torch-free profile."""
        return LayerProfile(
            layer_name=self.layer_name,
            kind=self.kind,
            in_features=self.in_features,
            out_features=self.out_features,
            parameters=sum(parameter.numel() for parameter in self.module.parameters() if not _is_lazy(parameter)),
            has_bias=getattr(self.module, "bias", None) is not None,
            skip_reason=self.skip_reason,
        )


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside any `torch.compile`, DataParallel and DistributedDataParallel wrappers.

    Raises:
        CompressionError: it is TorchScript.
    """
    while True:
        if isinstance(module, torch.jit.ScriptModule):
            raise CompressionError(f"the module is {_TORCHSCRIPT}")
        if hasattr(module, "_orig_mod"):
            module = module._orig_mod  # type: ignore[assignment]
        elif isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        else:
            return module


def has_lazy_weights(module: nn.Module) -> bool:
    """Whether a parameter gets its shape with the first call only."""
    return any(map(_is_lazy, module.parameters()))


def unfused_forms(module: nn.Module) -> dict[str, nn.Module]:
    """{qualified name: unfused form} of the attention and recurrent layers of `module`; a layer used twice has one form."""
    tied = _tied(module)
    forms: dict[int, nn.Module] = {}
    found: dict[str, nn.Module] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        if isinstance(part, (nn.MultiheadAttention, nn.RNNBase)) and fused_reason(part, _shared_weights(part, tied)) is None:
            found[name] = forms.setdefault(id(part), unfused_form(part))
    return found


def find_layers(module: nn.Module, filter_fn: Filter | None = None) -> tuple[list[ForeignLayer], dict[str, str]]:
    """The linear layers and tables of `module`, and {name: reason} of everything else with a matrix in it."""
    slots: dict[int, list[str]] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        slots.setdefault(id(part), []).append(name)
    tied = _tied(module)
    layers: list[ForeignLayer] = []
    skipped: dict[str, str] = {}
    closed: list[str] = []
    for name, part in module.named_modules():
        if any(name.startswith(prefix) for prefix in closed):
            continue
        reason = _closed_reason(part, tied)
        if reason is not None:
            skipped[name] = reason
            closed.append(f"{name}." if name else "")
        elif _is_layer(part):
            layers.append(_layer(name, part, tuple(slots[id(part)]), tied.get(id(part)), filter_fn))
        else:
            skipped |= _raw_matrices(name, part)
    return layers, skipped


def profile_of(layers: list[ForeignLayer]) -> ModelProfile:
    """The profile for which `plans.ranks` chooses ranks."""
    return ModelProfile(architecture="any", layers=tuple(layer.profile() for layer in layers), cost=Cost(), folded_fixed=Cost())


def _is_layer(part: nn.Module) -> bool:
    return isinstance(part, (nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, *CONVOLUTIONS)) or is_transposed(part)


def _is_lazy(parameter: Tensor) -> bool:
    return nn.parameter.is_lazy(parameter)


def _closed_reason(part: nn.Module, tied: dict[int, str]) -> str | None:
    """Why nothing inside `part` is listed; None where it is."""
    note = getattr(part, "compression_note", None)
    if isinstance(note, str):
        return note
    if isinstance(part, torch.jit.ScriptModule):
        return _TORCHSCRIPT
    if type(part).__module__.startswith(_QUANTISED):
        return "its weights are quantised; compress the module as it was before"
    return fused_reason(part, _shared_weights(part, tied))


def _shared_weights(part: nn.Module, tied: dict[int, str]) -> str | None:
    """Why the weights of an attention or recurrent layer may not be replaced."""
    return next((tied[id(own)] for own in part.modules() if id(own) in tied), None)


def _layer(name: str, part: nn.Module, slots: tuple[str, ...], tied: str | None, filter_fn: Filter | None) -> ForeignLayer:
    reason = tied if tied is not None else _reason(part)
    if filter_fn is not None and not any(filter_fn(slot, part) for slot in slots):
        reason = "left out by filter_fn"
    inputs, outputs = _shape(part)
    return ForeignLayer(
        layer_name=name, kind="embedding" if isinstance(part, (nn.Embedding, nn.EmbeddingBag)) else "linear", module=part,
        in_features=int(inputs), out_features=int(outputs), slots=slots, skip_reason=reason,
    )  # fmt: skip


def _shape(part: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a layer as a linear map, or (rows, d) of a table."""
    if isinstance(part, nn.Bilinear):
        return part.in1_features * part.in2_features, part.out_features
    if isinstance(part, nn.Linear):
        return part.in_features, part.out_features
    if isinstance(part, CONVOLUTIONS):
        return part.in_channels // part.groups * math.prod(part.kernel_size), part.out_channels
    if isinstance(part, (nn.Embedding, nn.EmbeddingBag)):
        return part.num_embeddings, part.embedding_dim
    weight = cast(Tensor, part.weight)
    return weight.shape[0], weight.shape[1]


def _reason(part: nn.Module) -> str | None:
    if any(_is_lazy(parameter) or parameter.numel() == 0 for parameter in part.parameters()):
        return _LAZY
    if (reason := _weight_reason(part)) is not None:
        return reason
    if isinstance(part, CONVOLUTIONS):
        return _convolution_reason(part)
    if isinstance(part, (nn.Linear, nn.Bilinear)):
        if type(part).forward not in (nn.Linear.forward, nn.Bilinear.forward):
            return _own_forward(part)
        return linear_skip_reason(part)
    if not isinstance(part, (nn.Embedding, nn.EmbeddingBag)):
        return "one output unit" if _shape(part)[1] == 1 else None
    if type(part).forward not in (nn.Embedding.forward, nn.EmbeddingBag.forward):
        return _own_forward(part)
    if part.embedding_dim == 1:
        return "one-dimensional table"
    if part.max_norm is not None:
        return "it renormalises rows at look-up (max_norm)"
    if isinstance(part, nn.EmbeddingBag) and part.mode == "max":
        return "max pooling is not linear in the rows"
    return None


def _own_forward(part: nn.Module) -> str:
    return f"a subclass with a forward pass of its own ({type(part).__name__})"


def _weight_reason(part: nn.Module) -> str | None:
    """Why the weight of a layer is not a matrix of floats that may be replaced; None where it is."""
    if hasattr(part, "parametrizations"):
        return "its weight is parametrized"
    weight = part._parameters.get("weight")
    if weight is None:
        return "its weight is computed from other parameters before every call, as by weight_norm"
    if type(weight.data) is not Tensor or not weight.is_floating_point():
        return f"its weight is of {type(weight.data).__name__} {str(weight.dtype).removeprefix('torch.')}, not of plain floats"
    return None


def _convolution_reason(part: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> str | None:
    if type(part).forward not in {kind.forward for kind in CONVOLUTIONS}:
        return _own_forward(part)
    if part.groups != 1:
        return f"a convolution in {part.groups} groups"
    return "a convolution to one channel" if part.out_channels == 1 else None


def _tied(module: nn.Module) -> dict[int, str]:
    """{id of a module: reason} of modules that share a parameter with another module."""
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, part in module.named_modules():
        for parameter in part.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((name, part))
    reasons = {}
    for sharing in owners.values():
        for name, part in sharing:
            others = [other for other, _ in sharing if other != name]
            if others:
                reasons[id(part)] = f"its weight is also that of {', '.join(other or 'the module itself' for other in others)}"
    return reasons


def _raw_matrices(name: str, part: nn.Module) -> dict[str, str]:
    """{name: reason} of the parameters of a module that is no compressible layer, one-dimensional ones aside."""
    found = {}
    for own, parameter in part.named_parameters(recurse=False):
        if _is_lazy(parameter):
            found[f"{name}.{own}".lstrip(".")] = _LAZY
        elif parameter.ndim >= 2:
            kind = type(part).__name__
            reason = f"raw parameter of {kind}, not the weight of a layer"
            if isinstance(part, nn.modules.conv._ConvTransposeNd):
                reason = f"a transposed convolution ({kind})"
            found[f"{name}.{own}".lstrip(".")] = reason
    return found
