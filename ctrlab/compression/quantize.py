"""The serving form in integers: tables of 8 or 4 bits a number, linear layers of 8; a step after any low-rank method, or none.

    table    row = scale_f code + offset_f, code 0 .. 2^bits - 1; one scale and one offset a field and column, not a row
    linear   W = diag(scale) code, code -127 .. 127; one scale an output, the bias stays as it is

Both ranges are clipped where that lowers the squared error. What is computed is what the float model computes with the numbers
that codes stand for: sums and products stay float32, so torch and ONNX Runtime agree. An exported file keeps the codes.

Stay as they are: small linear layers and those of one output or input (`prediction.quantizes_linear`), and raw parameters,
which belong to no layer: DCN's cross weights, numeric fields' vectors, projections of tables, and the folded readers of
`compression.readers` but for an MLP's first layer. Of the architectures only AutoInt's attention, folded with a basis a field,
leaves more than 2 % of its bytes so.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ctrlab.compression.embedding import PartTable
from ctrlab.compression.fold import UNCOMPRESSED
from ctrlab.errors import CompressionError, ConfigError
from ctrlab.models.base import CTRModel
from ctrlab.models.layers import FieldEmbedding, FusedTable
from ctrlab.plans.configs import PRECISIONS, Precision
from ctrlab.plans.cost_prediction import code_bits, quantizes_linear

NOTE = "quantised for serving"

_CHUNK_ROWS = 65_536
#: Shares of the whole range that are tried; below the last, what is cut off costs more than any step saves.
_SHRINKS = tuple(0.9**step for step in range(30))
#: Ranges are tried on so many rows of a table at most, evenly spread; the fit that follows sees them all.
_SEARCH_ROWS = 65_536
_REFITS = 3
_LARGEST_CODE = 127  # of a weight

#: {name of a vocabulary, as in `schema.table_names`: how often each of its ids occurs in training, (num_ids,)}.
Counts = Mapping[str, np.ndarray[Any, Any]]


class QuantizedTable(nn.Module):
    """A FusedTable in integers: field f owns rows starts[f] : starts[f] + field_dims[f], and row f of `scale` and `offset`.

    codes: uint8 (sum of field_dims, bytes a row); of 4 bits two a byte, the earlier column in the lower half.
    scale, offset: (F, width) in the model's own type.
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
        """Numbers of the table."""
        return len(self.codes) * self.width

    def row_macs(self) -> int:
        """A look-up, as of any table."""
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
        """The numbers (ids of the field, width) that its codes stand for."""
        return self.look_up(torch.arange(self.field_dims[field], device=self.codes.device), field)

    def _rows(self, places: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        codes = functional.embedding(places, self.codes)
        return (unpack(codes, self.width) if self.bits == 4 else codes).to(scale.dtype) * scale + offset


class QuantizedLinear(nn.Module):
    """y = diag(scale) codes x + bias: a linear layer with int8 weights.

    codes: int8 (out, in). scale: (out,) and bias: (out,) or None, in the model's own type.
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
        """Weights."""
        return self.codes.numel()

    def row_macs(self) -> int:
        """One per weight."""
        return self.codes.numel()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return functional.linear(x, self.dequantized(), self.bias)

    def dequantized(self) -> Tensor:
        """The weights (out, in) that the codes stand for."""
        weight: Tensor = _Dequantize.apply(self.codes, self.scale)
        return weight


class _Dequantize(torch.autograd.Function):
    """int8 codes (out, in), scale (out,) -> weights; of its own, for the exporter would write a plain product out as floats."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, scale: Tensor) -> Tensor:
        return codes.to(scale.dtype) * scale.unsqueeze(1)

    @staticmethod
    def symbolic(graph: Any, codes: Any, scale: Any) -> Any:
        """The ONNX operator, which takes the product for a weight and not for a constant to fold."""
        return graph.op("DequantizeLinear", codes, scale, axis_i=0)


def pack(codes: Tensor) -> Tensor:
    """Codes 0 .. 15, uint8 (..., width) -> (..., ceil(width / 2)): two a byte, the earlier one in the lower half."""
    even = functional.pad(codes, (0, codes.shape[-1] % 2))
    return even[..., ::2] | (even[..., 1::2] << 4)


def unpack(packed: Tensor, width: int) -> Tensor:
    """What `pack` was given, of that width."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)[..., :width]


@torch.no_grad()
def quantize(model: CTRModel, precision: Precision, counts: Counts | None = None) -> CTRModel:
    """`model`, usually a serving form, in integers; in evaluation mode. `model` itself is not changed.

    Args:
        precision: "int8"; "int4" for tables of 4 bits (of width 1 they keep 8) and linear layers of 8; "float32" for a copy.
        counts: an id's share in its column's squared error is its count and one more, so that ids never seen do count. Tables
            that are not named, and all of them without counts, take every id alike.

    Raises:
        ConfigError: there is no such precision.
        CompressionError: the model is quantised already, has numbers that are not finite, or the counts are of other tables.
    """
    _check(model, precision, counts or {})
    replaced = {id(module): module for module in model.modules() if precision != "float32" and _is_quantized(module)}
    quantized = copy.deepcopy(model, dict(replaced))  # what is replaced is not copied only to be thrown away
    for old, new, tables in prepare_(quantized, precision):
        if isinstance(new, QuantizedLinear):
            _fill_linear(cast(nn.Linear, old), new)
        else:
            own: list[np.ndarray[Any, Any] | None] = [None] * len(cast(FusedTable, old).field_dims)
            if not isinstance(old, PartTable):
                own = [(counts or {}).get(model.schema.table_names[table]) for table in tables]
            _fill_table(cast(FusedTable, old), cast(QuantizedTable, new), own)
    return quantized.eval()


def prepare_(model: CTRModel, precision: Precision) -> list[tuple[nn.Module, nn.Module, Sequence[int]]]:
    """In place: put quantised modules, with no codes yet, where `precision` wants them, and write it into `model.structure`.

    Returns:
        (module that was there, the one that is there now, numbers of the schema's tables whose ids have rows in it) of each.
    """
    _check_name(precision)
    if precision == "float32":
        return []
    model.structure = {**(model.structure or UNCOMPRESSED), "precision": precision}
    made = []
    for name, old in [(name, module) for name, module in model.named_modules() if _is_quantized(module)]:
        owner = model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, FieldEmbedding):
            cast(Any, owner).compression_note = NOTE  # its tables are listed as closed, as those of any reduced embedding
        new = _empty(old, precision)
        model.set_submodule(name, new)
        holds_ids = isinstance(old, FusedTable) and not isinstance(old, PartTable)
        tables = getattr(owner, "fields", range(len(old.field_dims))) if holds_ids else ()
        made.append((old, new, tables))
    return made


def is_quantized(model: nn.Module) -> bool:
    """Whether some part of `model` is in integers."""
    return any(isinstance(module, (QuantizedTable, QuantizedLinear)) for module in model.modules())


def _is_quantized(module: nn.Module) -> bool:
    """Whether there is an integer form of it."""
    return isinstance(module, FusedTable) or (
        isinstance(module, nn.Linear) and quantizes_linear(module.in_features, module.out_features)
    )


def _empty(module: nn.Module, precision: Precision) -> nn.Module:
    """What takes the place of `module`; a linear layer's bias is its own already."""
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


def _check(model: CTRModel, precision: str, counts: Counts) -> None:
    _check_name(precision)
    if is_quantized(model):
        raise CompressionError("the model is quantised already; quantise the float serving form it was made from")
    dims = dict(zip(model.schema.table_names, model.schema.table_dims, strict=True))
    for name, own in counts.items():
        if name in dims and len(own) != dims[name]:
            raise CompressionError(
                f"{len(own)} counts were given for the {dims[name]} ids of {name}; use those of its own dataset"
            )
    for name, parameter in model.named_parameters():
        if precision != "float32" and not parameter.isfinite().all():
            raise CompressionError(f"{name} holds numbers that are not finite, which no code stands for; train the model again")


class _Grid(NamedTuple):
    """The numbers scale c + offset of every column, c = lowest .. highest; scale and offset (d,)."""

    scale: Tensor
    offset: Tensor
    lowest: int
    highest: int

    def nearest(self, values: Tensor) -> Tensor:
        """values (n, d) -> codes (n, d), as floats; what lies beyond the range gets its end."""
        return ((values - self.offset) / self.scale).round().clamp(self.lowest, self.highest)

    def to(self, dtype: torch.dtype) -> "_Grid":
        """As it is stored. A column of one number has a step that rounds to nothing."""
        return self._replace(scale=self.scale.to(dtype).clamp(min=torch.finfo(dtype).tiny), offset=self.offset.to(dtype))

    def where(self, columns: Tensor, other: "_Grid") -> "_Grid":
        """This grid in the columns that are marked, `other` in the rest."""
        scale, offset = torch.where(columns, self.scale, other.scale), torch.where(columns, self.offset, other.offset)
        return self._replace(scale=scale, offset=offset)


def _fill_linear(linear: nn.Linear, new: QuantizedLinear) -> None:
    outputs = linear.weight.T
    largest = outputs.abs().amax(0).double().clamp(min=torch.finfo(linear.weight.dtype).tiny)
    step, zero = largest / _LARGEST_CODE, torch.zeros_like(largest)
    grid, _ = _best(_Columns(outputs, None), [_Grid(shrink * step, zero, -_LARGEST_CODE, _LARGEST_CODE) for shrink in _SHRINKS])
    grid = grid.to(linear.weight.dtype)
    new.scale.copy_(grid.scale)
    new.codes.copy_(grid.nearest(outputs).T)


def _fill_table(table: FusedTable, new: QuantizedTable, counts: Sequence[np.ndarray[Any, Any] | None]) -> None:
    weight = table.table.weight
    for field, own in enumerate(counts):
        rows = table.rows_of(field)
        weights = None if own is None else torch.tensor(own, dtype=torch.float64, device=weight.device) + 1
        grid = _table_grid(_Columns(weight[rows], weights), 2**new.bits - 1).to(weight.dtype)
        new.scale[field], new.offset[field] = grid.scale, grid.offset
        for start in range(rows.start, rows.stop, _CHUNK_ROWS):
            chunk = slice(start, min(start + _CHUNK_ROWS, rows.stop))
            codes = grid.nearest(weight[chunk]).to(torch.uint8)
            new.codes[chunk] = pack(codes) if new.bits == 4 else codes


class _Columns:
    """Values (n, d) and what each row counts, read in float64 chunks; sums over the rows give (d,)."""

    def __init__(self, values: Tensor, weights: Tensor | None) -> None:
        self.values = values
        self.weights = weights if weights is not None else torch.ones(len(values), dtype=torch.float64, device=values.device)

    def thinned(self, limit: int) -> "_Columns":
        """Every so-manieth row, `limit` of them at most."""
        every = -(-len(self.values) // limit)
        return _Columns(self.values[::every], self.weights[::every])

    def sums(self, terms: Callable[[Tensor], Iterable[Tensor]]) -> list[Tensor]:
        """The weighted sum over all rows of each of `terms(rows (n, d))`."""
        totals = [torch.stack([weights @ term for term in terms(rows)]) for rows, weights in self._chunks()]
        return list(torch.stack(totals).sum(0))

    def squared_error(self, grid: _Grid) -> Tensor:
        """Of each column (d,)."""
        return self.sums(lambda rows: [(grid.scale * grid.nearest(rows) + grid.offset - rows).square()])[0]

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows, weights in zip(self.values.split(_CHUNK_ROWS), self.weights.split(_CHUNK_ROWS), strict=True):
            yield rows.double(), weights


def _table_grid(columns: _Columns, highest: int) -> _Grid:
    """The best range, shrunk about the mean, first at both ends alike and then at either, for outliers often lie on one side;
    after that the least-squares fit of the values to their codes, over and again.
    """
    low, high = columns.values.amin(0).double(), columns.values.amax(0).double()
    mean = columns.sums(lambda rows: [rows])[0] / columns.weights.sum()
    whole, some = _between(low, high, mean, highest, 1.0, 1.0), columns.thinned(_SEARCH_ROWS)
    grid, error = _best(some, [_between(low, high, mean, highest, shrink, shrink) for shrink in _SHRINKS])
    low, high = grid.offset, grid.offset + highest * grid.scale
    one_sided = [pair for shrink in _SHRINKS[2::2] for pair in ((shrink, 1.0), (1.0, shrink))]
    grid, _ = _best(some, [_between(low, high, mean, highest, *pair) for pair in one_sided], (grid, error))
    grid, error = _best(columns, [whole, grid])
    for _ in range(_REFITS):
        grid, error = _best(columns, [_refitted(columns, grid, mean)], (grid, error))
    return grid


def _between(low: Tensor, high: Tensor, mean: Tensor, highest: int, below: float, above: float) -> _Grid:
    """The range low .. high with the shares `below` and `above` of what lies on either side of the mean."""
    start, end = mean + below * (low - mean), mean + above * (high - mean)
    return _Grid(((end - start) / highest).clamp(min=torch.finfo(torch.float32).tiny), start, 0, highest)


def _best(columns: _Columns, grids: Iterable[_Grid], best: tuple[_Grid, Tensor] | None = None) -> tuple[_Grid, Tensor]:
    """Column by column the grid of the least squared error, and that error; of equals the first."""
    for grid in grids:
        error = columns.squared_error(grid)
        if best is None:
            best = grid, error
            continue
        lower = error < best[1]
        best = grid.where(lower, best[0]), torch.where(lower, error, best[1])
    assert best is not None
    return best


def _refitted(columns: _Columns, grid: _Grid, mean: Tensor) -> _Grid:
    """The scale and offset under which the codes that the values have now stand for them best."""
    total = columns.weights.sum()
    c, cc, v, cv = columns.sums(lambda rows: _moments(grid.nearest(rows), rows - mean))
    spread = total * cc - c.square()
    scale = (total * cv - c * v) / spread
    fitted = grid._replace(scale=scale, offset=mean + (v - scale * c) / total)
    return fitted.where((spread > 0) & (scale > 0), grid)


def _moments(codes: Tensor, values: Tensor) -> tuple[Tensor, ...]:
    return codes, codes.square(), values, codes * values
