"""Loops of a linear layer over looked-up vectors that multiply each distinct vector of a batch once.

A batch of thousands of rows holds few distinct ids of most fields: of Criteo's vectors a ninth to a sixth. With x = [e_1 .. e_F]
and e_f one of few vectors v_u of its field, x W^T = sum_f W_f e_f is a sum of F of the products W_f v_u. In the backward pass
gradients of y are summed by distinct vector before they are multiplied. The sums run in registers over columns of y that stay in
the cache, and take less time than the multiplications they save.

A field is computed by one thread, and so is a column of y: results do not depend on the number of threads.

Shapes: B rows, F fields, U distinct vectors, d their width (a multiple of 8), O outputs (a multiple of 32).
"""

from typing import Any

import numpy as np

from ctrlab.kernels.compile import REORDER_SUMS, compiled
from ctrlab.kernels.parts import Parts, in_one_part
from ctrlab.kernels.rows import ByField, FloatArray, Places, in_line
from ctrlab.kernels.vectors import LANES, add, all_lanes, load, multiply_add, prefetch, spread, store, where_positive

_vectorised = compiled(fastmath=REORDER_SUMS)

#: Columns of y at a time: four registers.
COLUMNS = 4 * LANES
#: Distinct vectors whose summed gradients are in the cache at a time.
_TILE = 64
#: How many occurrences ahead are prefetched.
_AHEAD = 8
#: Cost of summing the gradient of one occurrence, relative to multiplying a distinct vector.
_OCCURRENCE = 0.1


def forward(
    vectors: FloatArray,
    weight: FloatArray,
    bias: FloatArray,
    fields: ByField,
    out: FloatArray,
    relu: bool,
    parts: Parts = in_one_part,
) -> None:
    """out (B, o) = sum_f W_f v_{b,f} + bias, and max(., 0) of it if asked.

    Args:
        vectors: (U, d). weight: (F, d, O), zero-padded from o to O outputs. bias: (O,).
    """
    blocks = weight.shape[2] // COLUMNS
    arrays = vectors.reshape(-1), weight.reshape(-1), bias, fields.first, fields.of_place, in_line(out)
    sizes = vectors.shape[1], weight.shape[2], out.shape[1], relu
    parts(lambda start, end: _forward(*arrays, *sizes, start, end), blocks, elements=out.size)


@_vectorised
def _store_columns(array: Any, at: int, y0: Any, y1: Any, y2: Any, y3: Any) -> None:
    """The four registers of a block of columns, one after the other from array[at] on."""
    store(array, at, y0)
    store(array, at + LANES, y1)
    store(array, at + 2 * LANES, y2)
    store(array, at + 3 * LANES, y3)


@_vectorised
def _forward(vectors: Any, weight: Any, bias: Any, first: Any, of_place: Any, out: Any, width: int, outputs: int, given: int,
           relu: bool, start: int, end: int) -> None:  # fmt: skip
    num_fields = len(first) - 1
    num_rows = len(of_place) // num_fields
    products = np.empty(len(vectors) // width * COLUMNS, np.float32)
    zero, last = all_lanes(np.float32(0)), np.empty(COLUMNS, np.float32)
    for block in range(start, end):
        column = block * COLUMNS
        for f in range(num_fields):
            _products(vectors, weight, products, first[f], first[f + 1], f * width * outputs + column, width, outputs)
        for b in range(num_rows):
            y0, y1 = load(bias, column), load(bias, column + LANES)
            y2, y3 = load(bias, column + 2 * LANES), load(bias, column + 3 * LANES)
            for place in range(b * num_fields, (b + 1) * num_fields):
                at = of_place[place] * COLUMNS
                y0, y1 = add(y0, load(products, at)), add(y1, load(products, at + LANES))
                y2, y3 = add(y2, load(products, at + 2 * LANES)), add(y3, load(products, at + 3 * LANES))
            if relu:
                y0, y1, y2, y3 = (where_positive(y0, zero, y0), where_positive(y1, zero, y1),
                                  where_positive(y2, zero, y2), where_positive(y3, zero, y3))  # fmt: skip
            if column + COLUMNS <= given:
                at = b * given + column
                _store_columns(out, at, y0, y1, y2, y3)
            else:
                _store_columns(last, 0, y0, y1, y2, y3)
                for j in range(given - column):
                    out[b * given + column + j] = last[j]


@_vectorised
def _products(vectors: Any, weight: Any, products: Any, first: int, end: int, corner: int, width: int, outputs: int) -> None:
    """Of the vectors first .. end - 1 with four registers of columns, two vectors at a time: a weight is read once for both."""
    zero = all_lanes(np.float32(0))
    for slot in range(first, end, 2):
        other = min(slot + 1, end - 1)
        a0, a1, a2, a3 = zero, zero, zero, zero
        b0, b1, b2, b3 = zero, zero, zero, zero
        for k in range(width):
            at = corner + k * outputs
            w0, w1 = load(weight, at), load(weight, at + LANES)
            w2, w3 = load(weight, at + 2 * LANES), load(weight, at + 3 * LANES)
            x, y = spread(vectors, slot * width + k), spread(vectors, other * width + k)
            a0, a1, a2, a3 = multiply_add(x, w0, a0), multiply_add(x, w1, a1), multiply_add(x, w2, a2), multiply_add(x, w3, a3)
            b0, b1, b2, b3 = multiply_add(y, w0, b0), multiply_add(y, w1, b1), multiply_add(y, w2, b2), multiply_add(y, w3, b3)
        at, beside = slot * COLUMNS, other * COLUMNS
        _store_columns(products, at, a0, a1, a2, a3)
        _store_columns(products, beside, b0, b1, b2, b3)


def relu_backward(
    grad: FloatArray, out: FloatArray | None, outputs: int, parts: Parts = in_one_part
) -> tuple[FloatArray, FloatArray]:
    """The gradient before a ReLU whose result is `out` (B, o), and that of the bias (O,).

    Returns:
        The former by blocks of columns, (O / 32, B, 32), so that a block lies in few pages of memory.
    """
    of_y, of_bias = np.empty((outputs // COLUMNS, len(grad), COLUMNS), np.float32), np.empty(outputs, np.float32)
    results = np.empty(0, np.float32) if out is None else out.reshape(-1)
    arrays = grad.reshape(-1), results, of_y.reshape(-1), of_bias
    parts(lambda start, end: _relu_backward(*arrays, grad.shape[1], start, end), len(of_y), elements=grad.size)
    return of_y, of_bias


@_vectorised
def _relu_backward(grad: Any, out: Any, of_y: Any, of_bias: Any, given: int, start: int, end: int) -> None:
    num_rows = len(grad) // given
    for block in range(start, end):
        column, corner = block * COLUMNS, block * num_rows * COLUMNS
        for j in range(column, column + COLUMNS):
            of_bias[j] = 0
        whole = max(0, min(COLUMNS, given - column)) // LANES * LANES
        for b in range(num_rows):
            source, target = b * given + column, corner + b * COLUMNS
            for j in range(0, whole, LANES):
                g = load(grad, source + j)
                if len(out):
                    g = where_positive(load(out, source + j), all_lanes(np.float32(0)), g)
                store(of_y, target + j, g)
                store(of_bias, column + j, add(load(of_bias, column + j), g))
            for j in range(whole, COLUMNS):
                passes = column + j < given and (len(out) == 0 or not out[source + j] <= 0)
                of_y[target + j] = grad[source + j] if passes else np.float32(0)
                of_bias[column + j] += of_y[target + j]


def backward(
    grad: FloatArray, vectors: FloatArray, weight: FloatArray, starts: Places, fields: ByField, parts: Parts = in_one_part
) -> tuple[FloatArray, FloatArray]:
    """Gradients of the vectors (U, d) and of the weight (F, d, O).

    Args:
        grad: (O / 32, B, 32), of y, zero-padded to O outputs. weight: (F, O, d). starts: those of `RowGroups`.
    """
    of_vectors, of_weight = np.zeros_like(vectors), np.zeros((weight.shape[0], weight.shape[2], weight.shape[1]), np.float32)
    arrays = grad.reshape(-1), vectors.reshape(-1), weight.reshape(-1), starts, fields.batch_rows, fields.first
    into = of_vectors.reshape(-1), of_weight.reshape(-1)
    # In parts of about the same cost, each of whole fields.
    cost = fields.first[1:] + np.arange(1, len(fields.first)) * (grad.shape[1] * _OCCURRENCE)
    parts(
        lambda start, end: _backward(
            *arrays, *into, vectors.shape[1], weight.shape[1], *np.searchsorted(cost, (start, end), "right").tolist()
        ),
        int(cost[-1]) + 1,
        elements=grad.size,
    )
    return of_vectors, of_weight


@_vectorised
def _backward(grad: Any, vectors: Any, weight: Any, starts: Any, batch_rows: Any, first: Any, of_vectors: Any, of_weight: Any,
          width: int, outputs: int, start: int, end: int) -> None:  # fmt: skip
    summed = np.empty(_TILE * COLUMNS, np.float32)
    num_rows = len(grad) // outputs
    for column in range(0, outputs, COLUMNS):
        for f in range(start, end):
            for slot in range(first[f], first[f + 1], _TILE):
                size = min(_TILE, first[f + 1] - slot)
                _sum_by_vector(grad, starts, batch_rows, summed, slot, size, column * num_rows)
                _back_to_weight(summed, vectors, of_weight, slot, size, f * width * outputs + column, width, outputs)
                _back_to_vectors(summed, weight, of_vectors, slot, size, (f * outputs + column) * width, width)


@_vectorised
def _sum_by_vector(grad: Any, starts: Any, batch_rows: Any, summed: Any, first: int, size: int, corner: int) -> None:
    zero = all_lanes(np.float32(0))
    for i in range(size):
        s0, s1, s2, s3 = zero, zero, zero, zero
        for at in range(starts[first + i], starts[first + i + 1]):
            if at + _AHEAD < len(batch_rows):
                prefetch(grad, corner + batch_rows[at + _AHEAD] * COLUMNS)
            row = corner + batch_rows[at] * COLUMNS
            s0, s1 = add(s0, load(grad, row)), add(s1, load(grad, row + LANES))
            s2, s3 = add(s2, load(grad, row + 2 * LANES)), add(s3, load(grad, row + 3 * LANES))
        _store_columns(summed, i * COLUMNS, s0, s1, s2, s3)


@_vectorised
def _back_to_weight(summed: Any, vectors: Any, of_weight: Any, first: int, size: int, corner: int, width: int,
                    outputs: int) -> None:  # fmt: skip
    """of_weight[k, columns] += sum_i vectors[i, k] summed[i, columns], two k at a time."""
    for k in range(0, width, 2):
        at, beside = corner + k * outputs, corner + (k + 1) * outputs
        a0, a1 = load(of_weight, at), load(of_weight, at + LANES)
        a2, a3 = load(of_weight, at + 2 * LANES), load(of_weight, at + 3 * LANES)
        b0, b1 = load(of_weight, beside), load(of_weight, beside + LANES)
        b2, b3 = load(of_weight, beside + 2 * LANES), load(of_weight, beside + 3 * LANES)
        for i in range(size):
            row = i * COLUMNS
            s0, s1 = load(summed, row), load(summed, row + LANES)
            s2, s3 = load(summed, row + 2 * LANES), load(summed, row + 3 * LANES)
            x, y = spread(vectors, (first + i) * width + k), spread(vectors, (first + i) * width + k + 1)
            a0, a1, a2, a3 = multiply_add(x, s0, a0), multiply_add(x, s1, a1), multiply_add(x, s2, a2), multiply_add(x, s3, a3)
            b0, b1, b2, b3 = multiply_add(y, s0, b0), multiply_add(y, s1, b1), multiply_add(y, s2, b2), multiply_add(y, s3, b3)
        _store_columns(of_weight, at, a0, a1, a2, a3)
        _store_columns(of_weight, beside, b0, b1, b2, b3)


@_vectorised
def _back_to_vectors(summed: Any, weight: Any, of_vectors: Any, first: int, size: int, corner: int, width: int) -> None:
    """of_vectors[i, :] += sum_c summed[i, c] weight[c, :], four vectors at a time."""
    for part in range(0, width, LANES):
        i = 0
        while i < size:
            p0, p1 = i * COLUMNS, min(i + 1, size - 1) * COLUMNS
            p2, p3 = min(i + 2, size - 1) * COLUMNS, min(i + 3, size - 1) * COLUMNS
            zero = all_lanes(np.float32(0))
            a0, a1, a2, a3 = zero, zero, zero, zero
            b0, b1, b2, b3 = zero, zero, zero, zero
            for c in range(0, COLUMNS, 2):  # twice as many sums as vectors: each waits for its last addition
                w, z = load(weight, corner + c * width + part), load(weight, corner + (c + 1) * width + part)
                a0, b0 = multiply_add(spread(summed, p0 + c), w, a0), multiply_add(spread(summed, p0 + c + 1), z, b0)
                a1, b1 = multiply_add(spread(summed, p1 + c), w, a1), multiply_add(spread(summed, p1 + c + 1), z, b1)
                a2, b2 = multiply_add(spread(summed, p2 + c), w, a2), multiply_add(spread(summed, p2 + c + 1), z, b2)
                a3, b3 = multiply_add(spread(summed, p3 + c), w, a3), multiply_add(spread(summed, p3 + c + 1), z, b3)
            at = (first + i) * width + part
            store(of_vectors, at, add(load(of_vectors, at), add(a0, b0)))
            if i + 1 < size:
                store(of_vectors, at + width, add(load(of_vectors, at + width), add(a1, b1)))
            if i + 2 < size:
                store(of_vectors, at + 2 * width, add(load(of_vectors, at + 2 * width), add(a2, b2)))
            if i + 3 < size:
                store(of_vectors, at + 3 * width, add(load(of_vectors, at + 3 * width), add(a3, b3)))
            i += 4
