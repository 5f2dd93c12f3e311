"""Self-attention over the fields of a row, forward and backward, with everything of a row in the first-level cache.

Attention in torch is optimised for long sequences; over some tens of fields, with heads 8 wide, most of its time was not spent on
multiplying. Here one thread takes a row from its vectors to its result. Attention weights are not stored for the backward pass,
which computes them again. Gradients of weights are summed over blocks of rows that depend on the batch alone: results do not
depend on the number of threads.

Shapes: B rows, M fields, D the width of a field's vector, A of all heads together, W = A / heads of one head. D and W must be
multiples of 8; all arrays are flat.
"""

import math
from typing import Any

import numpy as np

from ctrlab.kernels.compile import compiled
from ctrlab.kernels.vectors import (
    LANES,
    add,
    all_lanes,
    divide,
    larger,
    load,
    multiply,
    multiply_add,
    power_of_two,
    spread,
    store,
    subtract,
    where_positive,
)

_compiled = compiled(error_model="numpy")


@_compiled
def forward(
    first: int, last: int, query: Any, key: Any, value: Any, out: Any, fields: int, width: int, heads: int, scale: float
) -> None:
    """out = softmax_k(scale <query_m, key_k>) value_k for each head, of the rows first : last; arrays of (B, M, A)."""
    lanes = -(-fields // LANES) * LANES
    turned, weights = np.zeros(width // heads * lanes, np.float32), np.empty(fields * lanes, np.float32)
    for b in range(first, last):
        start = b * fields * width
        _attend_row(query, key, value, start, width, out, start, fields, width, heads, scale, turned, weights)


@_compiled
def backward(first: int, last: int, query: Any, key: Any, value: Any, grad: Any, of_query: Any, of_key: Any, of_value: Any,
              fields: int, width: int, heads: int, scale: float) -> None:  # fmt: skip
    """Gradients of `forward` of the rows first : last, from those of its result."""
    lanes = -(-fields // LANES) * LANES
    turned = np.zeros(width // heads * lanes, np.float32)
    weights, changes = np.empty(fields * lanes, np.float32), np.empty(fields * lanes, np.float32)
    for b in range(first, last):
        start = b * fields * width
        _attend_row_backward(query, key, value, start, width, grad, start, of_query, of_key, of_value, fields, width, heads,
                             scale, turned, weights, changes)  # fmt: skip


@_compiled
def forward_projected(first: int, last: int, e: Any, weight: Any, out: Any, fields: int, in_width: int, width: int, heads: int,
                       scale: float, residual: bool, relu: bool) -> None:  # fmt: skip
    """`forward` over the products of e with weight (D, 3 A): queries, keys, values; plus e where `residual`, then ReLU."""
    lanes = -(-fields // LANES) * LANES
    turned, weights = np.zeros(width // heads * lanes, np.float32), np.empty(fields * lanes, np.float32)
    projected = np.empty(fields * 3 * width, np.float32)
    query, key, value = projected, projected[width:], projected[2 * width :]
    zero = all_lanes(np.float32(0))
    for b in range(first, last):
        start, end = b * fields * width, (b + 1) * fields * width
        _product(e, b * fields * in_width, in_width, 1, weight, 0, 3 * width, projected, 0, 3 * width, fields, in_width,
                 3 * width, False)  # fmt: skip
        _attend_row(query, key, value, 0, 3 * width, out, start, fields, width, heads, scale, turned, weights)
        if residual:
            for i in range(start, end, LANES):
                store(out, i, add(load(out, i), load(e, i)))
        if relu:
            for i in range(start, end, LANES):
                store(out, i, larger(zero, load(out, i)))


@_compiled
def backward_projected(first: int, last: int, e: Any, weight: Any, turned_weight: Any, out: Any, grad: Any, of_e: Any,
                        of_weight: Any, fields: int, in_width: int, width: int, heads: int, scale: float, residual: bool,
                        relu: bool, blocks: int) -> None:  # fmt: skip
    """Gradients of `forward_projected` for the blocks first : last of `blocks`; of_weight (blocks, 3 A, D) is added to."""
    lanes = -(-fields // LANES) * LANES
    turned = np.zeros(width // heads * lanes, np.float32)
    weights, changes = np.empty(fields * lanes, np.float32), np.empty(fields * lanes, np.float32)
    projected, of_projected = np.empty(fields * 3 * width, np.float32), np.empty(fields * 3 * width, np.float32)
    query, key, value = projected, projected[width:], projected[2 * width :]
    of_query, of_key, of_value = of_projected, of_projected[width:], of_projected[2 * width :]
    behind = np.empty(fields * width, np.float32)
    zero = all_lanes(np.float32(0))
    rows = len(e) // (fields * in_width)
    for block in range(first, last):
        for b in range(rows * block // blocks, rows * (block + 1) // blocks):
            start, of_row = b * fields * width, b * fields * in_width
            for i in range(0, fields * width, LANES):
                change = load(grad, start + i)
                store(behind, i, where_positive(load(out, start + i), zero, change) if relu else change)
            _product(e, of_row, in_width, 1, turned_weight, 0, 3 * width, projected, 0, 3 * width, fields, in_width,
                     3 * width, False)  # fmt: skip
            _attend_row_backward(query, key, value, 0, 3 * width, behind, 0, of_query, of_key, of_value, fields, width, heads,
                                 scale, turned, weights, changes)  # fmt: skip
            _product(of_projected, 0, 3 * width, 1, weight, 0, in_width, of_e, of_row, in_width, fields, 3 * width, in_width,
                     False)  # fmt: skip
            _product(of_projected, 0, 1, 3 * width, e, of_row, in_width, of_weight, block * 3 * width * in_width, in_width,
                     3 * width, fields, in_width, True)  # fmt: skip
            if residual:
                for i in range(0, fields * width, LANES):
                    store(of_e, of_row + i, add(load(of_e, of_row + i), load(behind, i)))


@_compiled
def _attend_row(query: Any, key: Any, value: Any, start: int, pitch: int, out: Any, out_start: int, fields: int, width: int,
                heads: int, scale: float, turned: Any, weights: Any) -> None:  # fmt: skip
    """One row, whose fields lie `pitch` apart in query, key and value, and `width` apart in `out`."""
    lanes = -(-fields // LANES) * LANES
    size = width // heads
    for head in range(heads):
        here = start + head * size
        _weigh(query, key, here, pitch, fields, size, scale, turned, weights)
        _product(weights, 0, 1, lanes, value, here, pitch, out, out_start + head * size, width, fields, fields, size, False)


@_compiled
def _attend_row_backward(query: Any, key: Any, value: Any, start: int, pitch: int, grad: Any, grad_start: int, of_query: Any,
                         of_key: Any, of_value: Any, fields: int, width: int, heads: int, scale: float, turned: Any,
                         weights: Any, changes: Any) -> None:  # fmt: skip
    """The gradients of one row lie as query, key and value do; `turned`, `weights` and `changes` are scratch."""
    lanes = -(-fields // LANES) * LANES
    size = width // heads
    for head in range(heads):
        here, there = start + head * size, grad_start + head * size
        _weigh(query, key, here, pitch, fields, size, scale, turned, weights)
        _turn(grad, there, width, np.float32(1), turned, lanes, fields, size)
        _product(value, here, pitch, 1, turned, 0, lanes, changes, 0, lanes, fields, size, lanes, False)
        _change_scores(weights, changes, np.float32(scale), fields, lanes)
        _product(weights, 0, lanes, 1, grad, there, width, of_value, here, pitch, fields, fields, size, False)
        _product(changes, 0, lanes, 1, query, here, pitch, of_key, here, pitch, fields, fields, size, False)
        _product(changes, 0, 1, lanes, key, here, pitch, of_query, here, pitch, fields, fields, size, False)


@_compiled
def _weigh(query: Any, key: Any, start: int, pitch: int, fields: int, size: int, scale: float, turned: Any,
           weights: Any) -> None:  # fmt: skip
    """weights[k, m] = softmax_k(scale <query_m, key_k>); `turned` is scratch."""
    lanes = -(-fields // LANES) * LANES
    # Scores to the base of two: a power of two takes fewer steps than one of e.
    _turn(query, start, pitch, np.float32(scale * math.log2(math.e)), turned, lanes, fields, size)
    _product(key, start, pitch, 1, turned, 0, lanes, weights, 0, lanes, fields, size, lanes, False)
    for m in range(0, lanes, LANES):
        greatest = _greatest(weights, m, lanes, fields)
        total = all_lanes(np.float32(0))
        for k in range(fields):
            weight = power_of_two(subtract(load(weights, k * lanes + m), greatest))
            total = add(total, weight)
            store(weights, k * lanes + m, weight)
        share = divide(all_lanes(np.float32(1)), total)
        for k in range(fields):
            store(weights, k * lanes + m, multiply(load(weights, k * lanes + m), share))


@_compiled
def _greatest(x: Any, m: int, lanes: int, fields: int) -> Any:
    """max_k x[k, m], of eight columns; by four at a time, since each step waits for the one before it."""
    g0 = g1 = g2 = g3 = load(x, m)
    for k in range(0, fields - 3, 4):
        at = k * lanes + m
        g0 = larger(load(x, at), g0)
        g1 = larger(load(x, at + lanes), g1)
        g2 = larger(load(x, at + 2 * lanes), g2)
        g3 = larger(load(x, at + 3 * lanes), g3)
    for k in range(fields // 4 * 4, fields):
        g0 = larger(load(x, k * lanes + m), g0)
    return larger(larger(g0, g1), larger(g2, g3))


@_compiled
def _change_scores(weights: Any, changes: Any, scale: Any, fields: int, lanes: int) -> None:
    """changes[k, m], of the weights -> of <query_m, key_k>: scale weight (change - sum_k weight change)."""
    factor = all_lanes(scale)
    for m in range(0, lanes, LANES):
        mean = _sum_of_products(weights, changes, m, lanes, fields)
        for k in range(fields):
            change = subtract(load(changes, k * lanes + m), mean)
            store(changes, k * lanes + m, multiply(multiply(factor, load(weights, k * lanes + m)), change))


@_compiled
def _sum_of_products(x: Any, y: Any, m: int, lanes: int, fields: int) -> Any:
    """sum_k x[k, m] y[k, m], of eight columns; see `_greatest`."""
    s0 = s1 = s2 = s3 = all_lanes(np.float32(0))
    for k in range(0, fields - 3, 4):
        at = k * lanes + m
        s0 = multiply_add(load(x, at), load(y, at), s0)
        s1 = multiply_add(load(x, at + lanes), load(y, at + lanes), s1)
        s2 = multiply_add(load(x, at + 2 * lanes), load(y, at + 2 * lanes), s2)
        s3 = multiply_add(load(x, at + 3 * lanes), load(y, at + 3 * lanes), s3)
    for k in range(fields // 4 * 4, fields):
        s0 = multiply_add(load(x, k * lanes + m), load(y, k * lanes + m), s0)
    return add(add(s0, s1), add(s2, s3))


@_compiled
def _turn(x: Any, start: int, pitch: int, factor: Any, out: Any, lanes: int, fields: int, size: int) -> None:
    """out[j, m] = factor x[m, j]."""
    for m in range(fields):
        for j in range(size):
            out[j * lanes + m] = factor * x[start + m * pitch + j]


@_compiled
def _product(a: Any, a_start: int, a_row: int, a_term: int, x: Any, x_start: int, x_pitch: int, out: Any, out_start: int,
             out_pitch: int, rows: int, terms: int, width: int, onto: bool) -> None:  # fmt: skip
    """out[r, c] = sum_t a[r, t] x[t, c], added to what is there where `onto`.

    Args:
        a_row, a_term: how far apart a's rows and its columns lie. width: a multiple of 8.
    """
    for c in range(0, width, LANES):
        r = 0
        while r < rows:
            if rows < LANES:
                total = all_lanes(np.float32(0))
                for t in range(terms):
                    total = multiply_add(spread(a, a_start + r * a_row + t * a_term), load(x, x_start + t * x_pitch + c), total)
                _put(out, out_start + r * out_pitch + c, total, onto)
                r += 1
                continue
            # The last eight rows may overlap those before them, which gives the same numbers once more.
            r = min(r, rows - LANES)
            at, from_x = a_start + r * a_row, x_start + c
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = all_lanes(np.float32(0))
            for _ in range(terms):
                y = load(x, from_x)
                s0 = multiply_add(spread(a, at), y, s0)
                s1 = multiply_add(spread(a, at + a_row), y, s1)
                s2 = multiply_add(spread(a, at + 2 * a_row), y, s2)
                s3 = multiply_add(spread(a, at + 3 * a_row), y, s3)
                s4 = multiply_add(spread(a, at + 4 * a_row), y, s4)
                s5 = multiply_add(spread(a, at + 5 * a_row), y, s5)
                s6 = multiply_add(spread(a, at + 6 * a_row), y, s6)
                s7 = multiply_add(spread(a, at + 7 * a_row), y, s7)
                at += a_term
                from_x += x_pitch
            to = out_start + r * out_pitch + c
            _put(out, to, s0, onto)
            _put(out, to + out_pitch, s1, onto)
            _put(out, to + 2 * out_pitch, s2, onto)
            _put(out, to + 3 * out_pitch, s3, onto)
            _put(out, to + 4 * out_pitch, s4, onto)
            _put(out, to + 5 * out_pitch, s5, onto)
            _put(out, to + 6 * out_pitch, s6, onto)
            _put(out, to + 7 * out_pitch, s7, onto)
            r += LANES


@_compiled
def _put(out: Any, place: int, x: Any, onto: bool) -> None:
    store(out, place, add(load(out, place), x) if onto else x)
