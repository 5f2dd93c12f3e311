"""A linear layer over looked-up vectors that multiplies each distinct vector of a batch once.

A batch of thousands of rows holds few distinct ids of most fields: of Criteo's vectors a ninth to a sixth. With x = [e_1 .. e_F]
and e_f one of few vectors v_u of its field, x W^T = sum_f W_f e_f is a sum of F of the products W_f v_u; going back, the
gradients of y are summed by distinct vector before they are multiplied. The sums run in registers over columns of y that stay
in the cache, and take less time than the multiplications that they save.

Compiled by numba, for the CPU. A field is computed by one thread, and so is a column of y: results do not depend on the number
of threads. Shapes: B rows, F fields, U distinct vectors, d their width (a multiple of 8), O outputs (a multiple of 32).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctrlab.kernels.compile import REORDER_SUMS, compiled
from ctrlab.kernels.lookup import compiled_for
from ctrlab.kernels.origin import LookUp
from ctrlab.kernels.rows import ByField, FloatArray, Places, in_line
from ctrlab.kernels.threads import in_parts
from ctrlab.kernels.vectors import LANES, add, all_lanes, load, multiply_add, prefetch, spread, store, unless_positive

_vectorised = compiled(fastmath=REORDER_SUMS)

#: Columns of y at a time: four registers.
COLUMNS = 4 * LANES
#: Distinct vectors whose sums of gradients are kept at hand at a time.
_TILE = 64
#: How many occurrences ahead their place in memory is asked for.
_AHEAD = 8
#: What summing gradients of an occurrence costs, in multiplications of a distinct vector.
_OCCURRENCE = 0.1

#: The largest share of distinct vectors in a batch's that this is done with. By the times of its parts it stops to pay at 0.4 to
#: 0.8, by the width of the vectors.
MOST_DISTINCT = 0.3
#: Width of vectors and multiplications of a batch under which it does not.
_LEAST_WIDTH, _LEAST_MACS = 8, 1 << 26


def linear_of_look_up(look_up: LookUp, weight: Tensor, bias: Tensor | None, *, relu: bool) -> Tensor | None:
    """x W^T + b, and the ReLU of it if asked, for x (B, M d) the vectors of a look-up side by side: (B, o) float32.

    Args:
        weight: (o, M d). bias: (o,) or None.

    Returns:
        None where multiplying every vector takes less time, or must be done: `weight` reads something else, or a table row is
        not of one field alone.
    """
    of_one, num_vectors = look_up.weight.shape[1], look_up.ids.shape[1] + (0 if look_up.numeric is None else len(look_up.numeric))
    worth_it = len(look_up.ids) * weight.numel() >= _LEAST_MACS and of_one >= _LEAST_WIDTH and look_up.ids.numel() > 0
    if not worth_it or weight.shape[1] != num_vectors * of_one or not compiled_for(weight):
        return None
    if len(look_up.groups.rows) > MOST_DISTINCT * look_up.ids.numel() or (fields := look_up.by_field) is None:
        return None
    y: Tensor = _LinearOfLookUp.apply(look_up.of_rows, look_up.numeric, weight, bias, look_up, fields, relu)
    return y


class _LinearOfLookUp(torch.autograd.Function):
    """Numeric fields, whose vectors are x_v n_v, take the part sum_v x_v (W_v n_v): a product as narrow as their number."""

    @staticmethod
    def forward(ctx: Any, of_rows: Tensor | None, numeric: Tensor | None, weight: Tensor, bias: Tensor | None, look_up: LookUp,
                fields: ByField, relu: bool) -> Tensor:  # fmt: skip
        num_fields, d = len(fields.first) - 1, look_up.weight.shape[1]
        vectors = _padded(look_up.distinct_vectors(), LANES)
        inputs_by_outputs = _padded(_padded(weight[:, : num_fields * d].t().reshape(num_fields, d, -1), COLUMNS), LANES, dim=1)
        offset = weight.new_zeros(inputs_by_outputs.shape[2])
        if bias is not None:
            offset[: len(bias)] = bias
        out = weight.new_empty(len(look_up.ids), len(weight))
        relu_inside = relu and numeric is None
        multiply_ahead(vectors.numpy(), inputs_by_outputs.numpy(), offset.numpy(), fields, out.numpy(), relu_inside)
        if numeric is not None and look_up.values is not None:
            out.addmm_(look_up.values, _of_numeric(weight, num_fields, numeric))
            if relu:
                out.relu_()
        ctx.values, ctx.starts, ctx.fields = look_up.values, look_up.groups.starts, fields
        ctx.save_for_backward(vectors, numeric, weight, out if relu else None)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        vectors, numeric, weight, out = ctx.saved_tensors
        fields, num_fields, outputs = ctx.fields, len(ctx.fields.first) - 1, len(weight)
        d = weight.shape[1] // (num_fields + (0 if numeric is None else len(numeric)))
        outputs_by_inputs = _padded(weight[:, : num_fields * d].reshape(outputs, num_fields, d).transpose(0, 1), LANES)
        outputs_by_inputs = _padded(outputs_by_inputs, COLUMNS, dim=1)
        of_y, of_bias = passed_back(
            grad.float().contiguous().numpy(), None if out is None else out.numpy(), outputs_by_inputs.shape[1]
        )
        of_vectors, turned = multiply_back(of_y, vectors.numpy(), outputs_by_inputs.numpy(), ctx.starts, fields)
        of_weight = torch.from_numpy(turned)[:, :d, :outputs].permute(2, 0, 1).reshape(outputs, -1)
        of_numeric = None
        if numeric is not None:
            by_value = ctx.values.t() @ torch.from_numpy(of_y)  # (O / 32, V, 32)
            by_value = by_value.transpose(0, 1).reshape(len(numeric), -1)[:, :outputs]
            of_weight = torch.cat([of_weight, (by_value.t().unsqueeze(2) * numeric).flatten(1)], dim=1)
            of_numeric = torch.einsum("vo,ovd->vd", by_value, _numeric_part(weight, num_fields, numeric))
        return (
            torch.from_numpy(of_vectors)[:, :d] if ctx.needs_input_grad[0] else None, of_numeric, of_weight,
            torch.from_numpy(of_bias)[:outputs] if ctx.needs_input_grad[3] else None, None, None, None,
        )  # fmt: skip


def _padded(array: Tensor, multiple: int, dim: int = -1) -> Tensor:
    """Contiguous, with zeros behind it up to a multiple in one dimension."""
    more = -array.shape[dim] % multiple
    if more:
        shape = list(array.shape)
        shape[dim] = more
        array = torch.cat([array, array.new_zeros(shape)], dim=dim)
    return array.contiguous()


def _numeric_part(weight: Tensor, num_fields: int, numeric: Tensor) -> Tensor:
    """(o, V, d)."""
    return weight[:, num_fields * numeric.shape[1] :].view(len(weight), *numeric.shape)


def _of_numeric(weight: Tensor, num_fields: int, numeric: Tensor) -> Tensor:
    """W_v n_v of every numeric field: (V, o)."""
    return torch.einsum("ovd,vd->vo", _numeric_part(weight, num_fields, numeric), numeric)


def multiply_ahead(
    vectors: FloatArray, weight: FloatArray, bias: FloatArray, fields: ByField, out: FloatArray, relu: bool
) -> None:
    """out (B, o) = sum_f W_f v_{b,f} + bias, and max(., 0) of it if asked.

    Args:
        vectors: (U, d). weight: (F, d, O), zero behind the o outputs that there are. bias: (O,).
    """
    blocks = weight.shape[2] // COLUMNS
    arrays = vectors.reshape(-1), weight.reshape(-1), bias, fields.first, fields.of_place, in_line(out)
    sizes = vectors.shape[1], weight.shape[2], out.shape[1], relu
    in_parts(lambda start, end: _ahead(*arrays, *sizes, start, end), blocks, elements=out.size)


@_vectorised
def _store_columns(array: Any, at: int, y0: Any, y1: Any, y2: Any, y3: Any) -> None:
    """The four registers of a block of columns, one behind the other from array[at] on."""
    store(array, at, y0)
    store(array, at + LANES, y1)
    store(array, at + 2 * LANES, y2)
    store(array, at + 3 * LANES, y3)


@_vectorised
def _ahead(vectors: Any, weight: Any, bias: Any, first: Any, of_place: Any, out: Any, width: int, outputs: int, given: int,
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
                y0, y1, y2, y3 = (unless_positive(y0, zero, y0), unless_positive(y1, zero, y1),
                                  unless_positive(y2, zero, y2), unless_positive(y3, zero, y3))  # fmt: skip
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


def passed_back(grad: FloatArray, out: FloatArray | None, outputs: int) -> tuple[FloatArray, FloatArray]:
    """The gradient before a ReLU whose result is `out` (B, o), and that of the bias (O,).

    Returns:
        The former a block of columns after the other, (O / 32, B, 32): those of a block lie in few pages of memory.
    """
    of_y, of_bias = np.empty((outputs // COLUMNS, len(grad), COLUMNS), np.float32), np.empty(outputs, np.float32)
    results = np.empty(0, np.float32) if out is None else out.reshape(-1)
    arrays = grad.reshape(-1), results, of_y.reshape(-1), of_bias
    in_parts(lambda start, end: _passed_back(*arrays, grad.shape[1], start, end), len(of_y), elements=grad.size)
    return of_y, of_bias


@_vectorised
def _passed_back(grad: Any, out: Any, of_y: Any, of_bias: Any, given: int, start: int, end: int) -> None:
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
                    g = unless_positive(load(out, source + j), all_lanes(np.float32(0)), g)
                store(of_y, target + j, g)
                store(of_bias, column + j, add(load(of_bias, column + j), g))
            for j in range(whole, COLUMNS):
                passes = column + j < given and (len(out) == 0 or not out[source + j] <= 0)
                of_y[target + j] = grad[source + j] if passes else np.float32(0)
                of_bias[column + j] += of_y[target + j]


def multiply_back(
    grad: FloatArray, vectors: FloatArray, weight: FloatArray, starts: Places, fields: ByField
) -> tuple[FloatArray, FloatArray]:
    """Gradients of the vectors (U, d) and of the weight (F, d, O).

    Args:
        grad: (O / 32, B, 32), of y, zero behind the outputs that there are. weight: (F, O, d). starts: those of `RowGroups`.
    """
    of_vectors, of_weight = np.zeros_like(vectors), np.zeros((weight.shape[0], weight.shape[2], weight.shape[1]), np.float32)
    arrays = grad.reshape(-1), vectors.reshape(-1), weight.reshape(-1), starts, fields.batch_rows, fields.first
    into = of_vectors.reshape(-1), of_weight.reshape(-1)
    # In parts of about the same cost, each of whole fields.
    cost = fields.first[1:] + np.arange(1, len(fields.first)) * (grad.shape[1] * _OCCURRENCE)
    in_parts(
        lambda start, end: _back(
            *arrays, *into, vectors.shape[1], weight.shape[1], *np.searchsorted(cost, (start, end), "right").tolist()
        ),
        int(cost[-1]) + 1,
        elements=grad.size,
    )
    return of_vectors, of_weight


@_vectorised
def _back(grad: Any, vectors: Any, weight: Any, starts: Any, batch_rows: Any, first: Any, of_vectors: Any, of_weight: Any,
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
