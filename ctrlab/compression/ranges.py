"""Choice of the range that integer codes span: per column, the grid scale c + offset of least squared error.

Ranges narrower than the values' own are tried as well: clipping a few outliers lowers the error of all other values.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK_ROWS = 65_536
#: Fractions of the full range that are tried; below the last, clipping costs more than any finer step saves.
_SHRINKS = tuple(0.9**step for step in range(30))
_ALIKE = tuple((shrink, shrink) for shrink in _SHRINKS)
_ONE_SIDED = tuple(pair for shrink in _SHRINKS[2::2] for pair in ((shrink, 1.0), (1.0, shrink)))
#: Ranges are searched on at most this many rows of a table, evenly spaced; the refits use all rows.
_SEARCH_ROWS = 65_536
_REFITS = 3
_LARGEST_WEIGHT_CODE = 127


class Grid(NamedTuple):
    """Per column the numbers scale c + offset for the codes c = lowest .. highest; scale and offset (d,); (k, d) of k grids."""

    scale: Tensor
    offset: Tensor
    lowest: int
    highest: int

    def nearest(self, values: Tensor) -> Tensor:
        """values (n, d) -> codes (n, d), as floats; values outside the range are clipped to its ends."""
        return (values - self.offset).div_(self.scale).round_().clamp_(self.lowest, self.highest)

    def to(self, dtype: torch.dtype) -> "Grid":
        """The grid in the dtype it is stored in; scales that would round to zero become the smallest normal number."""
        return self._replace(scale=self.scale.to(dtype).clamp(min=torch.finfo(dtype).tiny), offset=self.offset.to(dtype))

    def where(self, columns: Tensor, other: "Grid") -> "Grid":
        """This grid where `columns` (d,) is true, `other` elsewhere."""
        scale, offset = torch.where(columns, self.scale, other.scale), torch.where(columns, self.offset, other.offset)
        return self._replace(scale=scale, offset=offset)


class Columns:
    """Values (n, d), read in float64 chunks; sums over the rows have shape (d,)."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def thinned(self, limit: int) -> "Columns":
        """Evenly spaced rows, at most `limit`."""
        every = -(-len(self.values) // limit)
        return Columns(self.values[::every]) if every > 1 else self

    def sums(self, terms: Callable[[Tensor], Iterable[Tensor]]) -> list[Tensor]:
        """The sum over all rows of each of `terms(rows (n, d))`, each (d,)."""
        totals = [torch.stack([term.sum(0) for term in terms(rows.double())]) for rows in self.values.split(_CHUNK_ROWS)]
        return list(torch.stack(totals).sum(0))

    def squared_errors(self, grids: Grid) -> Tensor:
        """Sum of squared rounding and clipping errors of each column by each of k grids, (k, d)."""
        scale, offset = grids.scale.unsqueeze(1), grids.offset.unsqueeze(1)
        each, total = grids._replace(scale=scale, offset=offset), torch.zeros_like(grids.scale)
        for chunk in self.values.split(max(1, _CHUNK_ROWS // len(scale))):
            rows = chunk.double()
            total += each.nearest(rows).mul_(scale).add_(offset).sub_(rows).square_().sum(1)
        return total


def symmetric_grid(values: Tensor) -> Grid:
    """The grid of a linear layer's weights, values (in, out): codes -127 .. 127 and no offset, one scale per output."""
    largest = values.abs().amax(0).double().clamp(min=torch.finfo(values.dtype).tiny)
    scale = largest.new_tensor(_SHRINKS).unsqueeze(1) * (largest / _LARGEST_WEIGHT_CODE)
    grids = Grid(scale, torch.zeros_like(scale), -_LARGEST_WEIGHT_CODE, _LARGEST_WEIGHT_CODE)
    return _best(Columns(values), grids)[0].to(values.dtype)


def asymmetric_grid(columns: Columns, highest: int) -> Grid:
    """The grid of a table's columns: codes 0 .. highest.

    The range is shrunk about the mean, first at both ends alike, then at one end alone, because outliers often lie on one side.
    Then scale and offset are fitted to the codes by least squares, repeatedly.
    """
    low, high = columns.values.amin(0).double(), columns.values.amax(0).double()
    mean = columns.sums(lambda rows: [rows])[0] / len(columns.values)
    some = columns.thinned(_SEARCH_ROWS)
    found = _best(some, _between(low, high, mean, highest, _ALIKE))
    first, last = found[0].offset, found[0].offset + highest * found[0].scale
    found = _best(some, _between(first, last, mean, highest, _ONE_SIDED), found)
    if some is not columns:
        found = _best(columns, _one(found[0]))
    found = _best(columns, _between(low, high, mean, highest, ((1.0, 1.0),)), found)
    for _ in range(_REFITS):
        found = _best(columns, _one(_refitted(columns, found[0], mean)), found)
    return found[0]


def _between(low: Tensor, high: Tensor, mean: Tensor, highest: int, shrinks: Sequence[tuple[float, float]]) -> Grid:
    """The range low .. high once for each of k pairs, its parts below and above the mean scaled by them; (k, d)."""
    below, above = low.new_tensor(shrinks).T.unsqueeze(2)
    start, end = mean + below * (low - mean), mean + above * (high - mean)
    return Grid(((end - start) / highest).clamp(min=torch.finfo(torch.float32).tiny), start, 0, highest)


def _one(grid: Grid) -> Grid:
    return grid._replace(scale=grid.scale.unsqueeze(0), offset=grid.offset.unsqueeze(0))


def _best(columns: Columns, grids: Grid, best: tuple[Grid, Tensor] | None = None) -> tuple[Grid, Tensor]:
    """Per column the one of k grids with the least squared error, and that error; `best` or the first where others are equal."""
    errors, place = columns.squared_errors(grids).min(0, keepdim=True)
    found, error = grids._replace(scale=grids.scale.gather(0, place)[0], offset=grids.offset.gather(0, place)[0]), errors[0]
    if best is None:
        return found, error
    lower = error < best[1]
    return found.where(lower, best[0]), torch.where(lower, error, best[1])


def _refitted(columns: Columns, grid: Grid, mean: Tensor) -> Grid:
    """Scale and offset fitted by least squares to the codes that the values have now."""
    total = len(columns.values)
    c, cc, v, cv = columns.sums(lambda rows: _moments(grid.nearest(rows), rows - mean))
    spread = total * cc - c.square()
    scale = (total * cv - c * v) / spread
    fitted = grid._replace(scale=scale, offset=mean + (v - scale * c) / total)
    return fitted.where((spread > 0) & (scale > 0), grid)


def _moments(codes: Tensor, values: Tensor) -> tuple[Tensor, ...]:
    return codes, codes.square(), values, codes * values
