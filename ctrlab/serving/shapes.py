"""Shape arithmetic of a traced graph as constants: at batch 1 it costs more than the model.

The exporter reads lengths from tensors (`Shape`, `Slice`, `Concat` around every table), although only the batch varies. What such
nodes compute is read at two batch sizes: entries that agree are constants, and the one that is the batch becomes -1 in `Reshape`.
"""

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto

from ctrlab.serving.graph import Array, Graph, computed

_SIZES = (3, 5)


def fold_shapes(graph: Graph, feeds: Mapping[str, Array]) -> None:
    """In place: replace shapes that are constants but for the batch, and what follows from constants alone.

    feeds: inputs of at least 5 rows.
    """
    _drop_empty_products(graph)
    _fold_constants(graph)
    derived = _of_shapes(graph)
    readers = [node for node in graph.nodes if not set(node.output) <= derived and set(node.input) & derived]
    names = sorted({name for node in readers for name in node.input if name in derived})
    if not names:
        return
    data = [node.input[0] for node in readers if node.op_type == "Reshape"]
    run = graph.runner([*names, *data])
    seen = [run({key: value[:size] for key, value in feeds.items()}) for size in _SIZES]
    for name in names:
        reading = [node for node in readers if name in node.input]
        rows_first = all(len(found[node.input[0]]) == size for node in reading if node.op_type == "Reshape"
                         for found, size in zip(seen, _SIZES, strict=True))  # fmt: skip
        reshape = all(node.op_type == "Reshape" for node in reading)
        values = _constant(*(found[name] for found in seen), reshape=reshape, rows_first=rows_first)
        if values is not None:
            graph.constants[name] = values
    graph.nodes = [node for node in graph.nodes if not set(node.output) <= set(graph.constants)]
    _fold_constants(graph)


def _drop_empty_products(graph: Graph) -> None:
    """In place: without sums of no numbers, those of fields that the data has not, where they are only added to others."""
    empty = {
        node.output[0]
        for node in graph.nodes
        if node.op_type == "MatMul" and any(graph.constants[name].size == 0 for name in node.input if name in graph.constants)
    }
    replaced: dict[str, str] = {}
    for node in graph.nodes:
        node.input[:] = [replaced.get(name, name) for name in node.input]
        if node.op_type == "Add" and len(empty & set(node.input)) == 1:
            replaced[node.output[0]] = next(name for name in node.input if name not in empty)


def _of_shapes(graph: Graph) -> set[str]:
    """Tensors that depend on shapes and constants alone."""
    found: set[str] = set()
    for node in graph.nodes:
        variable = [name for name in node.input if name and name not in graph.constants]
        if node.op_type == "Shape" or (variable and set(variable) <= found):
            found |= set(node.output)
    return found


def _constant(at_three: Array, at_five: Array, *, reshape: bool, rows_first: bool) -> Array | None:
    """The tensor as a constant; None where it varies with the batch in another way.

    reshape: whether it is the shape of a `Reshape` alone, in which -1 is what remains and 0 what the input has there.
    rows_first: whether the first axis of that input is the batch.
    """
    if at_three.shape != at_five.shape:
        return None
    differs = at_three != at_five
    if not differs.any():
        return at_three
    batch = (at_three == _SIZES[0]) & (at_five == _SIZES[1]) & differs
    if not reshape or at_three.ndim != 1 or differs.sum() != 1 or batch.sum() != 1:
        return None
    if not (at_three == -1).any():
        return np.where(batch, -1, at_three)
    return np.where(batch, 0, at_three) if batch[0] and rows_first else None


def _fold_constants(graph: Graph) -> None:
    kept: list[NodeProto] = []
    for node in graph.nodes:
        known = bool(node.input) and all(name in graph.constants for name in node.input)
        if known and len(node.output) == 1 and node.op_type != "DequantizeLinear":  # codes of weights stay codes
            graph.constants[node.output[0]] = np.asarray(computed(node, [graph.constants[name] for name in node.input]))
        else:
            kept.append(node)
    graph.nodes = kept
