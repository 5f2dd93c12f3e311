"""Loops over the rows of lookup tables: gather, group a batch's ids, sum their gradients.

Compiled by numba, for the CPU. The occurrences of an id are summed in the batch's order, by one thread: results do not depend on
the number of threads.

Shapes: B rows of a batch, F looked-up fields, M >= F vectors a row, d their width, U distinct table rows of the batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctrlab.kernels.compile import REORDER_SUMS, compiled
from ctrlab.kernels.parts import Parts, in_one_part
from ctrlab.kernels.vectors import LANES, add, all_lanes, load, multiply_add, prefetch, prefetch_row, store, subtract

_compiled = compiled()
#: Sums may be reordered within a row's d numbers, never between rows; nan and inf stay what they are.
_vectorised = compiled(fastmath=REORDER_SUMS | {"arcp"})

#: How many rows ahead a row is prefetched into the cache.
_AHEAD = 16
#: Bits of a row's number per pass of the radix sort.
_DIGIT = 11

#: Checked in the loops, because compiled code reads past the end of an array silently.
_OUTSIDE = "an id lies outside of its table; encode the data with the schema that the model was built for"

FloatArray = NDArray[np.float32]
#: Numbers of places in a batch, b F + f, or of what stands there.
Places = NDArray[np.int32]
#: (U,), numbers of table rows.
TableRows = NDArray[np.int64]


def in_line(array: FloatArray) -> FloatArray:
    """The same memory in one dimension, as the loops take it.

    Raises:
        ValueError: the array is not contiguous.
    """
    return np.reshape(array, -1, copy=False)


class RowGroups(NamedTuple):
    """Where each distinct table row occurs in a batch.

    rows: (U,) int64, rising. starts: (U + 1,) int32 into `order`. order: (B F,) int32, the places b F + f of each row's
    occurrences, in the batch's order.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int32]
    order: NDArray[np.int32]


def group_rows(ids: NDArray[Any], offsets: NDArray[np.int64], marker: NDArray[np.int32]) -> RowGroups:
    """Group the table rows `ids + offsets` of a batch; costs what the batch costs, however large the table.

    Args:
        ids: (B, F) int32 or int64, each below the rows of its field. offsets: (F,) where each field's rows begin.
        marker: (num_rows,) scratch of any content: an entry counts only where `rows` points back to it.

    Raises:
        IndexError: an id lies outside of the table; so do `gather` and `sum_of_rows`.
    """
    size = ids.size
    rows, slots, counts = np.empty(size, np.int64), np.empty(size, np.int32), np.empty(size, np.int32)
    found = _find_rows(ids, offsets, marker, rows, slots, counts)
    by_row = _argsort(rows[:found], len(marker))
    starts = np.zeros(found + 1, np.int32)
    np.cumsum(counts[:found][by_row], out=starts[1:])
    order = np.empty(size, np.int32)
    next_place = np.empty(found, np.int32)
    next_place[by_row] = starts[:-1]
    _place(slots, next_place, order)
    return RowGroups(rows[:found][by_row], starts, order)


@_compiled
def _argsort(rows: Any, limit: int) -> Any:
    """argsort of rows (n,), each below `limit`: a radix sort from the least significant digit on."""
    order, sorted_ = np.arange(len(rows)), np.empty(len(rows), np.int64)
    starts = np.empty((1 << _DIGIT) + 1, np.int64)
    shift = 0
    while shift == 0 or limit >> shift:
        starts[:] = 0
        for row in rows:
            starts[((row >> shift) & ((1 << _DIGIT) - 1)) + 1] += 1
        for digit in range(1, 1 << _DIGIT):
            starts[digit] += starts[digit - 1]
        for place in order:
            digit = (rows[place] >> shift) & ((1 << _DIGIT) - 1)
            sorted_[starts[digit]] = place
            starts[digit] += 1
        order, sorted_ = sorted_, order
        shift += _DIGIT
    return order


@_compiled
def _find_rows(ids: Any, offsets: Any, marker: Any, rows: Any, slots: Any, counts: Any) -> int:
    found = 0
    place = 0
    for b in range(ids.shape[0]):
        if b + 1 < ids.shape[0]:
            for f in range(ids.shape[1]):
                prefetch(marker, ids[b + 1, f] + offsets[f])
        for f in range(ids.shape[1]):
            row = ids[b, f] + offsets[f]
            if row < 0 or row >= len(marker):
                raise IndexError(_OUTSIDE)
            slot = marker[row]
            if slot < 0 or slot >= found or rows[slot] != row:
                slot = found
                marker[row] = slot
                rows[slot] = row
                counts[slot] = 0
                found += 1
            counts[slot] += 1
            slots[place] = slot
            place += 1
    return found


@_compiled
def _place(slots: Any, next_place: Any, order: Any) -> None:
    for place in range(len(slots)):
        slot = slots[place]
        order[next_place[slot]] = place
        next_place[slot] += 1


class ByField(NamedTuple):
    """Distinct vectors by field.

    first: (F + 1,) int64, where the vectors of each field begin. of_place: (B F,) int32, which vector stands at b F + f.
    batch_rows: (B F,) int32, the rows b of the occurrences, in the order of `RowGroups.order`.
    """

    first: NDArray[np.int64]
    of_place: Places
    batch_rows: Places


def by_field(groups: RowGroups, offsets: NDArray[np.int64], parts: Parts = in_one_part) -> ByField | None:
    """The groups by field; None where a table row occurs in two fields, or in a field that does not own it."""
    first = np.append(np.searchsorted(groups.rows, offsets), len(groups.rows))
    of_place, batch_rows = np.empty_like(groups.order), np.empty_like(groups.order)
    strays = np.zeros(1, np.int64)
    parts(
        lambda start, end: _place_by_field(groups.starts, groups.order, first, of_place, batch_rows, strays, start, end),
        len(groups.rows),
        elements=len(groups.order),
    )
    return None if strays[0] else ByField(first, of_place, batch_rows)


@_compiled
def _place_by_field(
    starts: Any, order: Any, first: Any, of_place: Any, batch_rows: Any, strays: Any, start: int, end: int
) -> None:
    num_fields = len(first) - 1
    divisor = np.uint32(num_fields)
    for slot in range(start, end):
        for at in range(starts[slot], starts[slot + 1]):
            place = np.uint32(order[at])
            b = place // divisor
            field = place - b * divisor
            if slot < first[field] or slot >= first[field + 1]:
                strays[0] = 1
            of_place[place] = slot
            batch_rows[at] = b


def gather(
    ids: NDArray[Any], offsets: NDArray[np.int64], weight: FloatArray, out: FloatArray, parts: Parts = in_one_part
) -> None:
    """out[b, f] = weight[ids[b, f] + offsets[f]] for the first F vectors of `out` (B, M, d)."""
    flat, into, width = in_line(weight), in_line(out), weight.shape[1]
    parts(lambda first, last: _gather(ids, offsets, flat, into, width, out.shape[1], first, last), len(ids), elements=ids.size)


@_compiled
def _gather(ids: Any, offsets: Any, weight: Any, out: Any, width: int, num_vectors: int, first: int, last: int) -> None:
    whole = width // LANES * LANES
    num_rows = len(weight) // width
    for b in range(first, last):
        if b + 1 < last:
            for f in range(ids.shape[1]):
                prefetch_row(weight, (ids[b + 1, f] + offsets[f]) * width, width)
        for f in range(ids.shape[1]):
            row = ids[b, f] + offsets[f]
            if row < 0 or row >= num_rows:
                raise IndexError(_OUTSIDE)
            source, target = row * width, (b * num_vectors + f) * width
            for j in range(0, whole, LANES):
                store(out, target + j, load(weight, source + j))
            for j in range(whole, width):
                out[target + j] = weight[source + j]


def sum_of_rows(ids: NDArray[Any], offsets: NDArray[np.int64], weight: FloatArray, parts: Parts = in_one_part) -> FloatArray:
    """(B,): the sum over the fields of a row's one-number table rows; weight (num_rows, 1)."""
    out = np.empty(len(ids), np.float32)
    parts(lambda first, last: _sum_of_rows(ids, offsets, weight, out, first, last), len(ids), elements=ids.size)
    return out


@_vectorised
def _sum_of_rows(ids: Any, offsets: Any, weight: Any, out: Any, first: int, last: int) -> None:
    for b in range(first, last):
        total = np.float32(0)
        for f in range(ids.shape[1]):
            row = ids[b, f] + offsets[f]
            if row < 0 or row >= weight.shape[0]:
                raise IndexError(_OUTSIDE)
            total += weight[row, 0]
        out[b] = total


class PairGradient(NamedTuple):
    """The gradient of sum_{i<j} e_i * e_j with respect to a row's vectors, which for e_i is grad * (total - e_i).

    grad: (B, d), of the sum. total: (B, d), sum_i e_i. weight: (num_rows, d), the table of the looked-up vectors.
    """

    grad: FloatArray
    total: FloatArray
    weight: FloatArray


def sum_by_row(
    grad: FloatArray | None, groups: RowGroups, num_fields: int, of_pairs: PairGradient | None = None, parts: Parts = in_one_part
) -> FloatArray:
    """(U, d): for each distinct table row the sum of the gradients of its occurrences.

    Args:
        grad: (B, M, d), of the vectors; None for zeros.
        num_fields: F; the vectors behind the first F are not rows of the table.
        of_pairs: added to every vector's gradient on the fly, without an array of (B, M, d).
    """
    nothing = np.empty((0, num_fields, 0), np.float32)
    own = nothing if grad is None else grad
    paired = (nothing, nothing, nothing) if of_pairs is None else of_pairs
    width = max(own.shape[2], paired[0].shape[-1])
    out = np.empty((len(groups.rows), width), np.float32)
    arrays = own.reshape(-1), paired[0].reshape(-1), paired[1].reshape(-1), paired[2].reshape(-1), out.reshape(-1)
    _by_occurrence(parts, groups, lambda first, last: _sum_by_row(*arrays, *groups, num_fields, own.shape[1], width, first, last))
    return out


@_vectorised
def _sum_by_row(grad: Any, grad_of_pairs: Any, total: Any, weight: Any, out: Any, rows: Any, starts: Any, order: Any,
                num_fields: int, num_vectors: int, width: Any, first: int, last: int) -> None:  # fmt: skip
    whole = width // LANES * LANES
    more, divisor = num_vectors - num_fields, np.uint32(num_fields)
    has_own, has_pairs = len(grad) > 0, len(total) > 0
    end = starts[last] if last > first else 0
    for slot in range(first, last):
        mine, vector = slot * width, rows[slot] * width
        if has_pairs and slot + _AHEAD < last:
            prefetch_row(weight, rows[slot + _AHEAD] * width, width)
        for j in range(0, whole, LANES):
            store(out, mine + j, all_lanes(np.float32(0)))
        for j in range(whole, width):
            out[mine + j] = 0
        for at in range(starts[slot], starts[slot + 1]):
            place = np.uint32(order[at])
            b = place // divisor
            if has_own:
                if at + _AHEAD < end:
                    ahead = np.uint32(order[at + _AHEAD])
                    prefetch_row(grad, (ahead + ahead // divisor * more) * width, width)
                source = (place + b * more) * width
                for j in range(0, whole, LANES):
                    store(out, mine + j, add(load(out, mine + j), load(grad, source + j)))
                for j in range(whole, width):
                    out[mine + j] += grad[source + j]
            if has_pairs:
                source = b * width
                for j in range(0, whole, LANES):
                    others = subtract(load(total, source + j), load(weight, vector + j))
                    store(out, mine + j, multiply_add(load(grad_of_pairs, source + j), others, load(out, mine + j)))
                for j in range(whole, width):
                    out[mine + j] += grad_of_pairs[source + j] * (total[source + j] - weight[vector + j])


def sum_of_scalars_by_row(grad: FloatArray, groups: RowGroups, num_fields: int, parts: Parts = in_one_part) -> FloatArray:
    """(U, 1): `sum_by_row` where every occurrence in a batch row b has the one gradient grad[b]; grad (B,)."""
    out = np.empty((len(groups.rows), 1), np.float32)
    _by_occurrence(
        parts, groups, lambda first, last: _sum_of_scalars(grad, groups.starts, groups.order, num_fields, out, first, last)
    )
    return out


@_compiled
def _sum_of_scalars(grad: Any, starts: Any, order: Any, num_fields: int, out: Any, first: int, last: int) -> None:
    divisor = np.uint32(num_fields)  # dividing by a shorter number takes less time
    for slot in range(first, last):
        total = np.float32(0)
        for at in range(starts[slot], starts[slot + 1]):
            total += grad[np.uint32(order[at]) // divisor]
        out[slot, 0] = total


def _by_occurrence(parts: Parts, groups: RowGroups, loop: Callable[[int, int], object]) -> None:
    """`loop` over the distinct rows, split by occurrences: a few ids hold most of a batch."""
    starts = groups.starts[:-1]
    parts(lambda first, last: loop(*np.searchsorted(starts, (first, last)).tolist()), len(groups.order))
