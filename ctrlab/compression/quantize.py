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
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from ctrlab.compression.quantized import NOTE, QuantizedLinear, QuantizedTable, is_quantized, pack
from ctrlab.compression.ranges import Columns, asymmetric_grid, symmetric_grid
from ctrlab.errors import CompressionError, ConfigError
from ctrlab.models.base import CTRModel
from ctrlab.models.layers import FieldEmbedding, FusedTable
from ctrlab.models.structure import Precision, Structure
from ctrlab.plans.configs import PRECISIONS
from ctrlab.plans.serving_forms import code_bits, quantizes_linear

_CHUNK_ROWS = 65_536


@torch.no_grad()
def quantize(model: CTRModel, precision: Precision) -> CTRModel:
    """A quantised copy of `model`, usually a serving form, in evaluation mode; `model` itself is not changed.

    Args:
        precision: "int8"; "int4" for tables of 4 bits (of width 1 they keep 8) and linear layers of 8; "float32" for a copy.

    Raises:
        ConfigError: there is no such precision.
        CompressionError: the model is quantised already or has numbers that are not finite.
    """
    _check(model, precision)
    replaced = {id(module): module for module in model.modules() if precision != "float32" and _is_quantizable(module)}
    quantized = copy.deepcopy(model, dict(replaced))  # replaced modules are not copied
    for old, new in prepare_(quantized, precision):
        if isinstance(new, QuantizedLinear):
            _fill_linear(cast(nn.Linear, old), new)
        else:
            _fill_table(cast(FusedTable, old), cast(QuantizedTable, new))
    return quantized.eval()


def prepare_(model: CTRModel, precision: Precision) -> list[tuple[nn.Module, nn.Module]]:
    """In place: replace modules by quantised ones without codes, and write the precision into `model.structure`.

    Returns:
        (old, new) of each replaced module.
    """
    _check_name(precision)
    if precision == "float32":
        return []
    model.structure = replace(model.structure or Structure(), precision=precision)
    made = []
    for name, old in [(name, module) for name, module in model.named_modules() if _is_quantizable(module)]:
        owner = model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, FieldEmbedding):
            cast(Any, owner).compression_note = NOTE  # so that its tables are listed as not compressible
        new = _empty(old, precision)
        model.set_submodule(name, new)
        made.append((old, new))
    return made


def _is_quantizable(module: nn.Module) -> bool:
    """Whether `module` has a quantised form."""
    return isinstance(module, FusedTable) or (
        isinstance(module, nn.Linear) and quantizes_linear(module.in_features, module.out_features)
    )


def _empty(module: nn.Module, precision: Precision) -> nn.Module:
    """The quantised form of `module` without codes; a linear layer's bias is copied."""
    if isinstance(module, FusedTable):
        like, width = module.table.weight, module.table.width
        return QuantizedTable(module.field_dims, width, code_bits(precision, width)).to(like.device, like.dtype)
    linear = cast(nn.Linear, module)
    new = QuantizedLinear(linear.in_features, linear.out_features, bias=False).to(linear.weight.device, linear.weight.dtype)
    bias = cast("nn.Parameter | None", linear.bias)
    new.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return new


def _check_name(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision}")


def _check(model: CTRModel, precision: str) -> None:
    _check_name(precision)
    if is_quantized(model):
        raise CompressionError("the model is quantised already; quantise the float serving form it was made from")
    for name, parameter in model.named_parameters():
        if precision != "float32" and not parameter.isfinite().all():
            raise CompressionError(f"{name} holds numbers that are not finite, which cannot be quantised; train the model again")


def _fill_linear(linear: nn.Linear, new: QuantizedLinear) -> None:
    grid = symmetric_grid(linear.weight.T)
    new.scale.copy_(grid.scale)
    new.codes.copy_(grid.nearest(linear.weight.T).T)


def _fill_table(table: FusedTable, new: QuantizedTable) -> None:
    weight = table.table.weight
    for field in range(len(table.field_dims)):
        rows = table.rows_of(field)
        grid = asymmetric_grid(Columns(weight[rows]), 2**new.bits - 1).to(weight.dtype)
        new.scale[field], new.offset[field] = grid.scale, grid.offset
        for start in range(rows.start, rows.stop, _CHUNK_ROWS):
            chunk = slice(start, min(start + _CHUNK_ROWS, rows.stop))
            codes = grid.nearest(weight[chunk]).to(torch.uint8)
            new.codes[chunk] = pack(codes) if new.bits == 4 else codes
