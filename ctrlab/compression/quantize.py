"""Post-training quantisation of a serving form: tables of 8 or 4 bits per number, linear layers of 8 bits.

    table    row = scale_f code + offset_f, code 0 .. 2^bits - 1; one scale and one offset per field and column, not per row
    linear   W = diag(scale) code, code -127 .. 127; one scale per output, the bias stays float

Both ranges are clipped where that lowers the squared error (`compression.ranges`). This is weight-only quantisation: codes are
dequantised and all sums and products are float32, so torch and ONNX Runtime agree. An exported file stores the codes.

These stay float: small linear layers and those of one output or input (`plans.serving_forms.quantizes_linear`), and raw
parameters that belong to no layer (DCN's cross weights, numeric fields' vectors, projections of tables, and the folded readers of
`compression.readers` except an MLP's first layer). These exceed 2 % of the bytes only in AutoInt, folded with a basis per field.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from ctrlab.compression.embedding import PartTable
from ctrlab.compression.quantized import NOTE, MixedTable, QuantizedLinear, QuantizedTable, is_quantized, pack
from ctrlab.compression.ranges import Columns, asymmetric_grid, symmetric_grid
from ctrlab.errors import CompressionError, ConfigError
from ctrlab.models.base import CTRModel
from ctrlab.models.layers import FieldEmbedding, FusedTable
from ctrlab.models.structure import Precision, Structure, quantises
from ctrlab.plans.configs import PRECISIONS
from ctrlab.plans.serving_forms import code_bits, quantizes_linear

_CHUNK_ROWS = 65_536


@torch.no_grad()
def quantize(model: CTRModel, precision: Precision, layer_precisions: Mapping[str, Precision] | None = None) -> CTRModel:
    """A quantised copy of `model`, usually a serving form, in evaluation mode; `model` itself is not changed.

    Args:
        precision: "int8"; "int4" for tables of 4 bits (of width 1 they keep 8) and linear layers of 8; "float32" for a copy.
        layer_precisions: {layer_name: precision} of linear layers and tables that have another.

    Raises:
        ConfigError: there is no such precision.
        CompressionError: the model is quantised already or has numbers that are not finite.
    """
    own = layer_precisions or {}
    _check(model, precision, own)
    replaced = {id(module): module for _, module, _ in _to_replace(model, precision, own)}
    quantized = copy.deepcopy(model, dict(replaced))  # replaced modules are not copied
    for old, new in prepare_(quantized, precision, own):
        if isinstance(new, QuantizedLinear):
            _fill_linear(cast(nn.Linear, old), new)
        elif isinstance(new, MixedTable):
            _fill_mixed(cast(FusedTable, old), new)
        else:
            _fill_table(cast(FusedTable, old), cast(QuantizedTable, new), range(len(cast(FusedTable, old).field_dims)))
    return quantized.eval()


def prepare_(
    model: CTRModel, precision: Precision, layer_precisions: Mapping[str, Precision] | None = None
) -> list[tuple[nn.Module, nn.Module]]:
    """In place: replace modules by quantised ones without codes, and write the precision into `model.structure`.

    Returns:
        (old, new) of each replaced module.
    """
    own = layer_precisions or {}
    _check_names(precision, own)
    if not quantises(precision, own):
        return []
    to_replace = _to_replace(model, precision, own)
    model.structure = replace(model.structure or Structure(), precision=precision, layer_precisions=dict(own))
    made = []
    for name, old, bits in to_replace:
        owner = model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, FieldEmbedding):
            cast(Any, owner).compression_note = NOTE  # so that its tables are listed as not compressible
        new = _empty(old, bits)
        model.set_submodule(name, new)
        made.append((old, new))
    return made


def _to_replace(
    model: CTRModel, precision: Precision, own: Mapping[str, Precision]
) -> list[tuple[str, nn.Module, tuple[Precision, ...]]]:
    """(name, module, precision of each of its fields, or its own) of every module that gets a quantised form."""
    found = [(name, module, _bits_of(model, name, precision, own)) for name, module in model.named_modules()
             if _is_quantizable(module)]  # fmt: skip
    return [each for each in found if set(each[2]) != {"float32"}]


def _bits_of(model: CTRModel, name: str, precision: Precision, own: Mapping[str, Precision]) -> tuple[Precision, ...]:
    module = model.get_submodule(name)
    if isinstance(module, FusedTable):
        return tuple(own.get(layer, precision) for layer in _tables_in(model, name, module))
    layer = next((layer for layer in own if name == layer or name.startswith(f"{layer}.")), name)
    return (own.get(layer, precision),)


def _tables_in(model: CTRModel, name: str, table: FusedTable) -> list[str]:
    """The layer_name of each field of a fused table; its own name where the fields are no layers of an embedding."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        owner = ".".join(parts[:depth])
        schema = getattr(model.get_submodule(owner), "schema", None)
        if schema is not None and not isinstance(table, PartTable):
            group = model.get_submodule(".".join(parts[:-1]))
            fields = getattr(group, "fields", range(len(table.field_dims)))
            return [f"{owner}.{schema.table_names[field]}" for field in fields]
    return [name] * len(table.field_dims)


def _is_quantizable(module: nn.Module) -> bool:
    """Whether `module` has a quantised form."""
    return isinstance(module, FusedTable) or (
        isinstance(module, nn.Linear) and quantizes_linear(module.in_features, module.out_features)
    )


def _empty(module: nn.Module, bits: tuple[Precision, ...]) -> nn.Module:
    """The quantised form of `module` without codes; a linear layer's bias is copied."""
    if isinstance(module, FusedTable):
        like, width = module.table.weight, module.table.width
        codes = [None if precision == "float32" else code_bits(precision, width) for precision in bits]
        if len(set(codes)) > 1:
            return MixedTable(module.field_dims, width, codes).to(like.device, like.dtype)
        return QuantizedTable(module.field_dims, width, cast(int, codes[0])).to(like.device, like.dtype)
    linear = cast(nn.Linear, module)
    new = QuantizedLinear(linear.in_features, linear.out_features, bias=False).to(linear.weight.device, linear.weight.dtype)
    bias = cast("nn.Parameter | None", linear.bias)
    new.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return new


def _check_names(precision: str, own: Mapping[str, str]) -> None:
    for each in (precision, *own.values()):
        if each not in PRECISIONS:
            raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {each}")


def _check(model: CTRModel, precision: Precision, own: Mapping[str, Precision]) -> None:
    _check_names(precision, own)
    if is_quantized(model):
        raise CompressionError("the model is quantised already; quantise the float serving form it was made from")
    for name, parameter in model.named_parameters():
        if quantises(precision, own) and not parameter.isfinite().all():
            raise CompressionError(f"{name} holds numbers that are not finite, which cannot be quantised; train the model again")


def _fill_linear(linear: nn.Linear, new: QuantizedLinear) -> None:
    grid = symmetric_grid(linear.weight.T)
    new.scale.copy_(grid.scale)
    new.codes.copy_(grid.nearest(linear.weight.T).T)


def _fill_table(table: FusedTable, new: QuantizedTable, fields: Sequence[int]) -> None:
    """In place: the codes of these fields of `table`, in their order."""
    for place, field in enumerate(fields):
        weight = table.table.weight[table.rows_of(field)]
        grid = asymmetric_grid(Columns(weight), 2**new.bits - 1).to(weight.dtype)
        new.scale[place], new.offset[place] = grid.scale, grid.offset
        own = new.codes[new.rows_of(place)]
        for start in range(0, len(weight), _CHUNK_ROWS):
            codes = grid.nearest(weight[start : start + _CHUNK_ROWS]).to(torch.uint8)
            own[start : start + _CHUNK_ROWS] = pack(codes) if new.bits == 4 else codes


def _fill_mixed(table: FusedTable, new: MixedTable) -> None:
    for part, fields in zip(new.parts, new.part_fields, strict=True):
        if isinstance(part, QuantizedTable):
            _fill_table(table, part, fields)
        else:
            rows = [table.table.weight[table.rows_of(field)] for field in fields]
            cast(FusedTable, part).table.weight.copy_(torch.cat(rows))
