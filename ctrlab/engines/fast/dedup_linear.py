"""A linear layer over looked-up vectors, as an operation of the batch's distinct rows; see `kernels/dedup_linear.py`."""

from typing import Any

import torch
from torch import Tensor

from ctrlab.engines.fast.batch_vectors import BatchVectors
from ctrlab.engines.fast.context import compiled_for
from ctrlab.engines.fast.linear import FastLinear
from ctrlab.kernels import dedup_linear as kernel
from ctrlab.kernels.dedup_linear import COLUMNS
from ctrlab.kernels.parts import Parts
from ctrlab.kernels.rows import ByField, Places
from ctrlab.kernels.vectors import LANES


def linear_of_look_up(batch: BatchVectors, layer: FastLinear) -> Tensor | None:
    """What `layer` gives for the vectors of a look-up side by side (B, M d): (B, out) float32.

    Returns:
        None where multiplying every vector takes less time (in bfloat16 always), or a table row is not of one field alone.
    """
    weight, width, limits = layer.weight, batch.weight.shape[1], batch.context.limits
    worth_it = len(batch.ids) * weight.numel() >= limits.least_macs and width >= limits.least_width and batch.ids.numel() > 0
    if layer.low or not worth_it or weight.shape[1] != batch.num_vectors * width or not compiled_for(weight):
        return None
    if batch.values is not None and batch.values.requires_grad:
        return None
    groups = batch.groups
    if len(groups.rows) > limits.most_distinct * batch.ids.numel() or (fields := batch.by_field) is None:
        return None
    y: Tensor = _LinearOfLookUp.apply(
        batch.rows, batch.numeric, weight, layer.bias, batch.values, groups.starts, fields, layer.relu, batch.context.parts
    )
    return y


class _LinearOfLookUp(torch.autograd.Function):
    """Numeric fields, with vectors x_v n_v, add sum_v x_v (W_v n_v): a product as narrow as their number."""

    @staticmethod
    def forward(ctx: Any, table_rows: Tensor, numeric: Tensor | None, weight: Tensor, bias: Tensor | None,
                values: Tensor | None, starts: Places, fields: ByField, relu: bool, parts: Parts) -> Tensor:  # fmt: skip
        num_fields, d = len(fields.first) - 1, table_rows.shape[1]
        vectors = _padded(table_rows.detach(), LANES)
        inputs_by_outputs = _padded(_padded(weight[:, : num_fields * d].t().reshape(num_fields, d, -1), COLUMNS), LANES, dim=1)
        offset = weight.new_zeros(inputs_by_outputs.shape[2])
        if bias is not None:
            offset[: len(bias)] = bias
        out = weight.new_empty(len(fields.of_place) // num_fields, len(weight))
        relu_inside = relu and numeric is None
        kernel.forward(vectors.numpy(), inputs_by_outputs.numpy(), offset.numpy(), fields, out.numpy(), relu_inside, parts)
        if numeric is not None and values is not None:
            out.addmm_(values, _of_numeric(weight, num_fields, numeric))
            if relu:
                out.relu_()
        ctx.values, ctx.starts, ctx.fields, ctx.parts = values, starts, fields, parts
        ctx.save_for_backward(vectors, numeric, weight, out if relu else None)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        vectors, numeric, weight, out = ctx.saved_tensors
        fields, num_fields, outputs = ctx.fields, len(ctx.fields.first) - 1, len(weight)
        d = weight.shape[1] // (num_fields + (0 if numeric is None else len(numeric)))
        outputs_by_inputs = _padded(weight[:, : num_fields * d].reshape(outputs, num_fields, d).transpose(0, 1), LANES)
        outputs_by_inputs = _padded(outputs_by_inputs, COLUMNS, dim=1)
        of_y, of_bias = kernel.relu_backward(
            grad.float().contiguous().numpy(), None if out is None else out.numpy(), outputs_by_inputs.shape[1], ctx.parts
        )
        of_vectors, turned = kernel.backward(of_y, vectors.numpy(), outputs_by_inputs.numpy(), ctx.starts, fields, ctx.parts)
        of_weight = torch.from_numpy(turned)[:, :d, :outputs].permute(2, 0, 1).reshape(outputs, -1)
        of_numeric = None
        if numeric is not None:
            by_value = ctx.values.t() @ torch.from_numpy(of_y)  # (O / 32, V, 32)
            by_value = by_value.transpose(0, 1).reshape(len(numeric), -1)[:, :outputs]
            of_weight = torch.cat([of_weight, (by_value.t().unsqueeze(2) * numeric).flatten(1)], dim=1)
            of_numeric = torch.einsum("vo,ovd->vd", by_value, _numeric_part(weight, num_fields, numeric))
        return (
            torch.from_numpy(of_vectors)[:, :d] if ctx.needs_input_grad[0] else None, of_numeric, of_weight,
            torch.from_numpy(of_bias)[:outputs] if ctx.needs_input_grad[3] else None, None, None, None, None,
            None,
        )  # fmt: skip


def _padded(array: Tensor, multiple: int, dim: int = -1) -> Tensor:
    """Contiguous, zero-padded to a multiple in one dimension."""
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
