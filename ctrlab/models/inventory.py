"""The layers of a model by name, and the reason why each one that cannot be compressed cannot.

Names are PyTorch's qualified names; a categorical field's table, a slice of the fused one, is "embedding.<field>". Spectra,
profiles, plans and surgery use these names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from ctrlab.models.layers import FieldEmbedding, LookupTable


@dataclass(frozen=True, kw_only=True)
class ModelLayer:
    """One layer of a model.

    in_features: for a table, its number of ids.
    out_features: width of the output; for a table, the width d of its rows.
    field: for a table, its index in `module_name`, the FieldEmbedding that owns it.
    skip_reason: why the layer cannot be compressed; None where it can.
    """

    layer_name: str
    kind: Literal["linear", "embedding", "other"]
    module_name: str
    in_features: int
    out_features: int
    parameters: int
    has_bias: bool = False
    field: int | None = None
    skip_reason: str | None = None


def list_layers(model: nn.Module) -> list[ModelLayer]:
    """Every linear layer, table and raw matrix of `model`, in the order of its modules.

    A module with a text attribute `compression_note` is listed with that as its reason; the modules inside it are not listed.
    """
    layers: list[ModelLayer] = []
    closed: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(prefix) for prefix in closed):
            continue
        note = getattr(module, "compression_note", None)
        if note is not None:
            layers.append(_other(name, module, note))
            closed.append(f"{name}.")
        elif isinstance(module, FieldEmbedding):
            layers.extend(_field_tables(name, module))
            closed.append(f"{name}.categorical")
        elif isinstance(module, nn.Linear):
            layers.append(_linear(name, module))
        elif isinstance(module, (LookupTable, nn.Embedding)):
            layers.append(_other(name, module, _table_reason(module)))
        layers.extend(_raw_matrices(name, module) if note is None else ())
    return layers


def is_compressed(model: nn.Module) -> bool:
    """Whether some part of `model` has been factored or folded."""
    return any(hasattr(module, "compression_note") for module in model.modules())


def linear_skip_reason(module: nn.Linear | nn.Bilinear) -> str | None:
    """Why a linear or bilinear layer of this shape cannot be compressed; None where it can."""
    if module.out_features == 1:
        return "one output unit"
    if isinstance(module, nn.Linear) and module.in_features == 1:
        return "one input feature, so its output has rank 1 already"
    return None


def _linear(name: str, module: nn.Linear) -> ModelLayer:
    return ModelLayer(
        layer_name=name, kind="linear", module_name=name, in_features=module.in_features, out_features=module.out_features,
        parameters=_count(module), has_bias=module.bias is not None, skip_reason=linear_skip_reason(module),
    )  # fmt: skip


def _field_tables(name: str, module: FieldEmbedding) -> Iterator[ModelLayer]:
    width = module.embed_dim
    for number, (field, num_ids) in enumerate(zip(module.schema.table_names, module.schema.table_dims, strict=True)):
        yield ModelLayer(
            layer_name=f"{name}.{field}", kind="embedding", module_name=name, in_features=num_ids, out_features=width,
            parameters=num_ids * width, field=number, skip_reason="one-dimensional table" if width == 1 else None,
        )  # fmt: skip


def _table_reason(module: LookupTable | nn.Embedding) -> str:
    return "one-dimensional table" if module.weight.shape[1] == 1 else "a table outside the field embedding"


def _other(name: str, module: nn.Module, reason: str) -> ModelLayer:
    parameters = _count(module)
    weight = getattr(module, "weight", None)
    rows, width = weight.shape if weight is not None else (0, 0)
    return ModelLayer(
        layer_name=name, kind="other", module_name=name, in_features=rows, out_features=width, parameters=parameters,
        skip_reason=reason,
    )  # fmt: skip


def _raw_matrices(name: str, module: nn.Module) -> Iterator[ModelLayer]:
    """Parameters with two or more axes that belong to no known layer, so that no hook sees their products."""
    if isinstance(module, (nn.Linear, LookupTable, nn.Embedding)):
        return
    for own_name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim >= 2:
            yield ModelLayer(
                layer_name=f"{name}.{own_name}".lstrip("."), kind="other", module_name=name, in_features=parameter.shape[0],
                out_features=parameter[0].numel() if len(parameter) else 0, parameters=parameter.numel(),
                skip_reason="raw parameter, not the weight of a layer",
            )  # fmt: skip


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
