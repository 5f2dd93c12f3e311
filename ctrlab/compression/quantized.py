"""Modules that store integer codes: tables of 8 or 4 bits per number, linear layers of 8, and how 4-bit codes are packed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.models.layers import FusedTable

#: Why a quantised module is not compressed.
NOTE = "quantised for serving"


class QuantizedTable(nn.Module):
    """A FusedTable of integer codes: field f owns rows starts[f] : starts[f] + field_dims[f], and row f of `scale` and `offset`.

    codes: uint8 (sum of field_dims, bytes per row); 4-bit codes are packed two per byte, the earlier column in the lower half.
    scale, offset: (F, width) in the model's dtype.
    """

    codes: Tensor
    scale: Tensor
    offset: Tensor
    starts: Tensor
    compression_note = NOTE
    codes_are_table = True
    trains = False

    def __init__(self, field_dims: Sequence[int], width: int, bits: int) -> None:
        super().__init__()
        self.field_dims = tuple(field_dims)
        self.width = width
        self.bits = bits
        self.register_buffer("codes", torch.zeros(sum(field_dims), -(-width * bits // 8), dtype=torch.uint8))
        self.register_buffer("scale", torch.ones(len(field_dims), width))
        self.register_buffer("offset", torch.zeros(len(field_dims), width))
        ends = torch.tensor(self.field_dims, dtype=torch.int64).cumsum(0)
        self.register_buffer("starts", ends - torch.tensor(self.field_dims, dtype=torch.int64), persistent=False)

    @property
    def num_codes(self) -> int:
        """The number of codes."""
        return len(self.codes) * self.width

    def row_macs(self) -> int:
        """None: look-ups and dequantisation are not counted."""
        return 0

    def rows_of(self, field: int) -> slice:
        """The table rows that field number `field` owns."""
        start = sum(self.field_dims[:field])
        return slice(start, start + self.field_dims[field])

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) integer, F at most the number of fields -> rows (B, F, width)."""
        fields = ids.shape[1]
        return self._rows(ids + self.starts[:fields], self.scale[:fields], self.offset[:fields])

    def sum(self, ids: Tensor) -> Tensor:
        """ids (B, F), of a table of width 1 -> (B,): the sum of each row's numbers."""
        summed: Tensor = self(ids).sum(dim=(1, 2))
        return summed

    def look_up(self, ids: Tensor, field: int) -> Tensor:
        """ids (...) of one field -> rows (..., width)."""
        return self._rows(ids + self.rows_of(field).start, self.scale[field], self.offset[field])

    def dequantized(self, field: int) -> Tensor:
        """The dequantised table (ids of the field, width) of one field."""
        return self.look_up(torch.arange(self.field_dims[field], device=self.codes.device), field)

    def _rows(self, places: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        codes = functional.embedding(places, self.codes)
        return (unpack(codes, self.width) if self.bits == 4 else codes).to(scale.dtype) * scale + offset


class MixedTable(nn.Module):
    """A FusedTable whose fields have different bits: fields of equal bits share a part.

    parts: a FusedTable (32 bits) or QuantizedTable each. part_fields: the fields of each part, in order.
    """

    compression_note = NOTE
    trains = False

    def __init__(self, field_dims: Sequence[int], width: int, bits: Sequence[int | None]) -> None:
        """bits: of each field's codes; None for 32-bit numbers."""
        super().__init__()
        self.field_dims, self.width = tuple(field_dims), width
        distinct = sorted(set(bits), key=lambda own: own or 32)
        self.part_fields = [[field for field, own in enumerate(bits) if own == part] for part in distinct]
        dims = [[self.field_dims[field] for field in fields] for fields in self.part_fields]
        self.parts = nn.ModuleList(
            FusedTable(own, width) if part is None else QuantizedTable(own, width, part)
            for part, own in zip(distinct, dims, strict=True)
        )
        self._place = {field: (number, place) for number, fields in enumerate(self.part_fields)
                       for place, field in enumerate(fields)}  # fmt: skip

    def row_macs(self) -> int:
        """None: look-ups and dequantisation are not counted."""
        return 0

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, F) integer, F at most the number of fields -> rows (B, F, width)."""
        own = [[field for field in fields if field < ids.shape[1]] for fields in self.part_fields]
        rows = [part(ids[:, fields]) for part, fields in zip(self.parts, own, strict=True) if fields]
        placed = [field for fields in own for field in fields]
        order = sorted(range(len(placed)), key=placed.__getitem__)
        return torch.cat(rows, dim=1)[:, order]

    def sum(self, ids: Tensor) -> Tensor:
        """ids (B, F), of a table of width 1 -> (B,): the sum of each row's numbers."""
        summed: Tensor = self(ids).sum(dim=(1, 2))
        return summed

    def look_up(self, ids: Tensor, field: int) -> Tensor:
        """ids (...) of one field -> rows (..., width)."""
        number, place = self._place[field]
        rows: Tensor = self.parts[number].look_up(ids, place)  # type: ignore[operator]
        return rows


class QuantizedLinear(nn.Module):
    """y = diag(scale) codes x + bias: a linear layer with int8 weights.

    codes: int8 (out, in). scale: (out,) and bias: (out,) or None, in the model's dtype.
    """

    codes: Tensor
    scale: Tensor
    bias: nn.Parameter | None
    compression_note = NOTE
    per_position = True

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("codes", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(out_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    @property
    def num_codes(self) -> int:
        """The number of codes."""
        return self.codes.numel()

    def row_macs(self) -> int:
        """One per weight."""
        return self.codes.numel()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return functional.linear(x, self.dequantized(), self.bias)

    def dequantized(self) -> Tensor:
        """The dequantised weights (out, in)."""
        weight: Tensor = _Dequantize.apply(self.codes, self.scale)
        return weight


class _Dequantize(torch.autograd.Function):
    """int8 codes (out, in), scale (out,) -> weights (out, in).

    An operator of its own, for an exporter would fold a plain product into float weights.
    """

    @staticmethod
    def forward(ctx: Any, codes: Tensor, scale: Tensor) -> Tensor:
        return codes.to(scale.dtype) * scale.unsqueeze(1)

    @staticmethod
    def symbolic(graph: Any, codes: Any, scale: Any) -> Any:
        """The ONNX operator; constant folding leaves it alone, so the file keeps the codes."""
        return graph.op("DequantizeLinear", codes, scale, axis_i=0)


def pack(codes: Tensor) -> Tensor:
    """Codes 0 .. 15, uint8 (..., width) -> (..., ceil(width / 2)): two per byte, the earlier one in the lower half."""
    even = functional.pad(codes, (0, codes.shape[-1] % 2))
    return even[..., ::2] | (even[..., 1::2] << 4)


def unpack(packed: Tensor, width: int) -> Tensor:
    """The inverse of `pack`: (..., ceil(width / 2)) -> codes (..., width)."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)[..., :width]


def is_quantized(model: nn.Module) -> bool:
    """Whether some module of `model` is quantised."""
    return any(isinstance(module, (QuantizedTable, QuantizedLinear)) for module in model.modules())
