"""The compressible layers of any `nn.Module`, and the reason why each other layer with a matrix cannot be compressed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from ctrlab.anymodule.unfused import fused_reason, unfused_form
from ctrlab.models.inventory import linear_skip_reason
from ctrlab.models.profile import Cost, LayerProfile, ModelProfile

#: (qualified name, module) -> whether to consider it.
Filter = Callable[[str, nn.Module], bool]


@dataclass(frozen=True, eq=False, kw_only=True)
class ForeignLayer:
    """A linear layer or a table of any module; a bilinear layer is a linear one of all products of its two inputs.

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
            parameters=sum(parameter.numel() for parameter in self.module.parameters()),
            has_bias=getattr(self.module, "bias", None) is not None,
            skip_reason=self.skip_reason,
        )


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside any `torch.compile`, DataParallel and DistributedDataParallel wrappers."""
    while True:
        if hasattr(module, "_orig_mod"):
            module = module._orig_mod  # type: ignore[assignment]
        elif isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        else:
            return module


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
    return isinstance(part, (nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag))


def _closed_reason(part: nn.Module, tied: dict[int, str]) -> str | None:
    """Why nothing inside `part` is listed; None where it is."""
    note = getattr(part, "compression_note", None)
    if isinstance(note, str):
        return note
    return fused_reason(part, _shared_weights(part, tied))


def _shared_weights(part: nn.Module, tied: dict[int, str]) -> str | None:
    """Why the weights of an attention or recurrent layer may not be replaced."""
    return next((tied[id(own)] for own in part.modules() if id(own) in tied), None)


def _layer(name: str, part: nn.Module, slots: tuple[str, ...], tied: str | None, filter_fn: Filter | None) -> ForeignLayer:
    reason = tied if tied is not None else _reason(part)
    if filter_fn is not None and not any(filter_fn(slot, part) for slot in slots):
        reason = "left out by filter_fn"
    if isinstance(part, nn.Bilinear):
        return ForeignLayer(
            layer_name=name, kind="linear", module=part, in_features=part.in1_features * part.in2_features,
            out_features=part.out_features, slots=slots, skip_reason=reason,
        )  # fmt: skip
    if isinstance(part, nn.Linear):
        return ForeignLayer(
            layer_name=name, kind="linear", module=part, in_features=part.in_features, out_features=part.out_features,
            slots=slots, skip_reason=reason,
        )  # fmt: skip
    assert isinstance(part, (nn.Embedding, nn.EmbeddingBag))
    return ForeignLayer(
        layer_name=name, kind="embedding", module=part, in_features=part.num_embeddings, out_features=part.embedding_dim,
        slots=slots, skip_reason=reason,
    )  # fmt: skip


def _reason(part: nn.Module) -> str | None:
    if any(parameter.numel() == 0 or nn.parameter.is_lazy(parameter) for parameter in part.parameters()):
        return "it has no weights yet"
    if isinstance(part, (nn.Linear, nn.Bilinear)):
        return _linear_reason(part)
    assert isinstance(part, (nn.Embedding, nn.EmbeddingBag))
    if type(part).forward not in (nn.Embedding.forward, nn.EmbeddingBag.forward):
        return f"a subclass with a forward pass of its own ({type(part).__name__})"
    if part.embedding_dim == 1:
        return "one-dimensional table"
    if part.max_norm is not None:
        return "it renormalises rows at look-up (max_norm)"
    if isinstance(part, nn.EmbeddingBag) and part.mode == "max":
        return "max pooling is not linear in the rows"
    return None


def _linear_reason(part: nn.Linear | nn.Bilinear) -> str | None:
    if type(part).forward not in (nn.Linear.forward, nn.Bilinear.forward):
        return f"a subclass with a forward pass of its own ({type(part).__name__})"
    if hasattr(part, "parametrizations"):
        return "its weight is parametrized"
    return linear_skip_reason(part)


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
                reasons[id(part)] = f"its weight is also that of {', '.join(others)}"
    return reasons


def _raw_matrices(name: str, part: nn.Module) -> dict[str, str]:
    return {
        f"{name}.{own}".lstrip("."): "raw parameter, not the weight of a layer"
        for own, parameter in part.named_parameters(recurse=False)
        if parameter.ndim >= 2
    }
