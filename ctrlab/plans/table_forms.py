"""The size of a reduced table in each form at a given rank; loads without torch.

A rank stands for the parameters of latents of that rank with their projection and mean: n k + k d + d for a table of n ids and
width d. Every other form is made as large as fits into that, so that one plan means one size whatever the method.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod

Triple = tuple[int, int, int]

_INDEX_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class TableShape:
    """The size and cost of one reduced table.

    tables: (rows, width) of everything looked up. dense: parameters outside tables.
    index_bytes: of integers that no precision changes. macs: of one look-up.
    """

    tables: tuple[tuple[int, int], ...]
    dense: int = 0
    index_bytes: int = 0
    macs: int = 0

    @property
    def parameters(self) -> int:
        """Numbers that are trained; an index is none."""
        return sum(map(prod, self.tables)) + self.dense


def table_numbers(num_ids: int, width: int, rank: int) -> int:
    """Numbers of latents (num_ids, rank), a projection and a mean."""
    return num_ids * rank + rank * width + width


def latents_shape(num_ids: int, width: int, rank: int) -> TableShape:
    """Latents (num_ids, rank) with a projection and a mean."""
    return TableShape(tables=((num_ids, rank),), dense=rank * width + width, macs=rank * width)


@dataclass(frozen=True, kw_only=True)
class TensorTrainShape:
    """ids: n_1 n_2 n_3 >= num_ids. widths: d_1 d_2 d_3 = width. ranks: R_1 and R_2 between the cores."""

    ids: Triple
    widths: Triple
    ranks: tuple[int, int]

    @property
    def cores(self) -> tuple[tuple[int, int], ...]:
        """(rows, width) of the cores (n_1, d_1 R_1), (n_2, R_1 d_2 R_2) and (n_3, R_2 d_3)."""
        (first, second), (d1, d2, d3) = self.ranks, self.widths
        return tuple(zip(self.ids, (d1 * first, first * d2 * second, second * d3), strict=True))

    @property
    def macs(self) -> int:
        """From left to right."""
        (first, second), (d1, d2, d3) = self.ranks, self.widths
        return d1 * first * d2 * second + d1 * d2 * second * d3


@lru_cache(maxsize=4096)
def tensor_train_shape(num_ids: int, width: int, rank: int) -> TensorTrainShape:
    """The largest tensor-train rank whose cores, with a mean, are no more numbers than `rank` stands for; at least 1."""
    ids, widths = _three_factors_above(num_ids), _three_factors_of(width)
    limit = table_numbers(num_ids, width, rank) - width
    bounds = (ids[0] * widths[0], ids[2] * widths[2])  # of the unfoldings' ranks, where the first and last core are narrow
    best = TensorTrainShape(ids=ids, widths=widths, ranks=(1, 1))
    for own in range(2, max(bounds) + 1):
        shape = TensorTrainShape(ids=ids, widths=widths, ranks=_ranks(own, bounds, ids, widths))
        if sum(map(prod, shape.cores)) > limit:
            break
        best = shape
    return best


def _ranks(rank: int, bounds: tuple[int, int], ids: Triple, widths: Triple) -> tuple[int, int]:
    """`rank` twice, no larger than the unfoldings can have."""
    middle = ids[1] * widths[1]
    first, second = min(rank, bounds[0]), min(rank, bounds[1])
    return min(first, middle * second), min(second, middle * first)


def tensor_train_table_shape(num_ids: int, width: int, rank: int) -> TableShape:
    """Three cores and a mean."""
    shape = tensor_train_shape(num_ids, width, rank)
    return TableShape(tables=shape.cores, dense=width, macs=shape.macs)


def _three_factors_above(number: int) -> Triple:
    """Three nearly equal factors with a product of at least `number`, as little above it as the last can make it."""
    side = ceil(round(number ** (1 / 3), 9))
    second = ceil(round((number / side) ** 0.5, 9))
    return side, second, ceil(number / (side * second))


def _three_factors_of(number: int) -> Triple:
    """The most equal three factors; the smallest in the middle, where the rank counts twice."""
    found = [
        (first, second, number // (first * second))
        for first in range(1, number + 1) if number % first == 0
        for second in range(1, first + 1) if number // first % second == 0 and second <= number // (first * second) <= first
    ]  # fmt: skip
    return min(found, key=sum)


def kept_ids(num_ids: int, width: int, rank: int) -> int:
    """Rows of a table whose rare ids share one row, that row included: the parameters of `rank` minus an index for every id."""
    return min(max(1, (table_numbers(num_ids, width, rank) - num_ids) // width), num_ids)


def kept_ids_shape(num_ids: int, width: int, rank: int) -> TableShape:
    """Rows of the ids that are kept, one row for all others, and an index."""
    return TableShape(tables=((kept_ids(num_ids, width, rank), width),), index_bytes=_INDEX_BYTES * num_ids)


@lru_cache(maxsize=4096)
def quotient_remainder_rows(num_ids: int, width: int, rank: int) -> tuple[int, int]:
    """Rows of the two tables: quotients and remainders. The divisor is the number of remainders.

    As many remainders as leave room for all quotients. Where even sqrt(n) of each are too many, half of each, and quotients wrap
    around: then some ids share both rows.
    """
    rows = max(2, table_numbers(num_ids, width, rank) // width)
    for remainders in range(min(rows - 1, num_ids), 0, -1):
        if remainders + (quotients := ceil(num_ids / remainders)) <= rows:
            return quotients, remainders
        if remainders * remainders < num_ids:
            break
    return rows // 2, rows - rows // 2


def quotient_remainder_shape(num_ids: int, width: int, rank: int) -> TableShape:
    """Two tables whose rows are multiplied."""
    quotients, remainders = quotient_remainder_rows(num_ids, width, rank)
    return TableShape(tables=((quotients, width), (remainders, width)), macs=width)
