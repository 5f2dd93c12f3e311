"""A graph that multiplies integers: tables as uint8 codes, dense layers as ONNX Runtime's QGemm (uint8 by int8).

    number     x = scale code + offset, with one scale and one offset a column
    table      codes of 8 bits, scale and offset by field and column; looked-up codes are the first layer's input as they are
    layer      W x + b = (W diag(scale)) code + (b + W offset): the scales fold into the weights, which are int8 with one scale an
               output; accumulated in int32 with the bias
    hidden     y = ReLU(...) leaves QGemm as codes again (a negative number is below code 0), its columns divided by the square
               root of their ranges, by which the next layer's weights are multiplied (as in SmoothQuant, arXiv 2211.10438)

Ranges are static, from least to greatest over calibration rows: a row's score does not depend on its batch. Everything else stays
float: the first-order term, FM, crosses, attention, and whatever reads the vectors themselves, which are then dequantised.

Weights are at most `EVERYWHERE`: then the sum of two products of a uint8 and an int8 fits 16 bits, as processors without
VNNI add them (AVX2: they saturate), so that every processor computes the same. `WITH_VNNI` is a
bit finer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from ctrlab.serving.graph import RUNTIME_DOMAIN, Array, Graph, attribute, computed

#: The greatest weight with which every processor computes the same, and with which those with VNNI do.
EVERYWHERE, WITH_VNNI = 63, 127
#: Layers of fewer weights stay float, unless their input is codes already.
_FEWEST_WEIGHTS = 1024
#: Operators that move numbers without changing them.
_MOVES = {"Flatten", "Reshape", "Concat", "Gather", "Transpose", "Unsqueeze", "Squeeze", "Slice"}


@dataclass(frozen=True, eq=False)
class Codes:
    """A tensor of uint8 codes: number = scale code + offset, both of the tensor's shape without the batch."""

    name: str
    scale: Array
    offset: Array


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer of the graph: y = x weight + bias, x (B, in), weight (in, out).

    relu: the node of a ReLU that alone reads y, None without one. feeds_layers: whether only layers read what leaves it.
    """

    node: NodeProto
    weight: Array
    bias: Array
    relu: NodeProto | None
    feeds_layers: bool

    @property
    def x(self) -> str:
        """The input tensor."""
        return str(self.node.input[0])

    @property
    def y(self) -> str:
        """The tensor that leaves it, behind the ReLU if there is one."""
        return str((self.relu or self.node).output[0])


def linear_layers(graph: Graph, weights: Iterable[Array], feeds: Mapping[str, Array]) -> list[Layer]:
    """The graph's nodes that multiply rows by one of these weights (out, in), those of the model's linear layers."""
    known = {np.ascontiguousarray(weight.T).tobytes() for weight in weights}
    found = [(node, weight) for node in graph.nodes if (weight := _weight(graph, node)) is not None and _bytes(weight) in known]
    shapes = graph.run([node.input[0] for node, _ in found], {name: values[:2] for name, values in feeds.items()})
    flat = [(node, weight) for node, weight in found if shapes[node.input[0]].ndim == 2]
    readers = graph.readers()
    layers = _as_layers(graph, flat, readers)
    kept = {id(layer.node) for layer in layers if layer.weight.size >= _FEWEST_WEIGHTS and layer.weight.shape[1] > 1}
    fed = {layer.y for layer in layers if id(layer.node) in kept}
    chosen = [(layer.node, layer.weight) for layer in layers if id(layer.node) in kept or layer.x in fed]
    return _as_layers(graph, chosen, readers)


def _as_layers(graph: Graph, found: list[tuple[NodeProto, Array]], readers: Mapping[str, list[NodeProto]]) -> list[Layer]:
    nodes = {id(node) for node, _ in found}
    layers = []
    for node, weight in found:
        reading = readers.get(node.output[0], [])
        relu = reading[0] if len(reading) == 1 and reading[0].op_type == "Relu" else None
        last = (relu or node).output[0]
        inside = all(id(reader) in nodes and reader.input[0] == last for reader in readers.get(last, []))
        bias = graph.constants[node.input[2]] if len(node.input) > 2 else np.zeros(weight.shape[1], np.float32)
        layers.append(Layer(node, weight, bias, relu, inside and last not in graph.outputs))
    return layers


def _weight(graph: Graph, node: NodeProto) -> Array | None:
    """The (in, out) weight of a node that multiplies by a constant matrix."""
    if node.op_type not in ("Gemm", "MatMul") or node.input[1] not in graph.constants:
        return None
    if node.op_type == "Gemm" and (attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0):
        return None
    if len(node.input) > 2 and (node.input[2] not in graph.constants or attribute(node, "beta", 1.0) != 1.0):
        return None
    weight = graph.constants[node.input[1]]
    if weight.ndim != 2:
        return None
    return weight.T if node.op_type == "Gemm" and attribute(node, "transB", 0) else weight


def _bytes(weight: Array) -> bytes:
    return np.ascontiguousarray(weight).tobytes()


def to_integers(
    graph: Graph, layers: list[Layer], feeds: Mapping[str, Array], *, limit: int = EVERYWHERE, code_tables: bool = True
) -> None:
    """In place: the tables and these layers in integers, with ranges of the calibration rows `feeds`.

    code_tables: False leaves the tables float; the first layers' inputs are then coded by their ranges.
    """
    _Rewriting(graph, layers, feeds, limit, code_tables).run()


class _Rewriting:
    """One pass over the nodes: each is copied, or replaced by its integer form."""

    def __init__(self, graph: Graph, layers: list[Layer], feeds: Mapping[str, Array], limit: int, code_tables: bool) -> None:
        self.graph, self.limit, self.code_tables = graph, limit, code_tables
        self.layers = {id(layer.node): layer for layer in layers}
        self.relus = {id(layer.relu) for layer in layers if layer.relu is not None}
        self.segments = _segments(graph)
        self.codes: dict[str, Codes] = {}
        self.made: list[NodeProto] = []
        self.ranges = self._measured(feeds)

    def run(self) -> None:
        """In place: the new nodes."""
        for node in self.graph.nodes:
            if id(node) in self.layers:
                self._layer(self.layers[id(node)])
            elif id(node) in self.relus:
                continue
            elif self.code_tables and _is_table(self.graph, node):
                self._table(node)
            elif node.op_type in _MOVES and self._moves_codes(node):
                self._move(node)
            else:
                self._float(node)
        self.graph.nodes = self.made

    def _measured(self, feeds: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """{tensor: least and greatest number of each column} of what may have to be coded."""
        made_by = self.graph.makers()
        moved = [name for node in self.graph.nodes if node.op_type == "Concat" for name in node.input]
        wanted = [layer.x for layer in self.layers.values()] + [layer.y for layer in self.layers.values()] + moved
        wanted = [name for name in dict.fromkeys(wanted) if name in made_by or name in feeds]
        inputs = {name: feeds[name] for name in wanted if name in feeds}
        found = inputs | self.graph.run([name for name in wanted if name not in inputs], dict(feeds))
        return {
            name: (values.min(axis=0), values.max(axis=0))
            for name, values in found.items()
            if values.dtype == np.float32 and values.ndim > 1 and len(values) == len(next(iter(feeds.values())))
        }

    def _emit(self, op: str, inputs: list[str], *, domain: str = "", output: str = "", **attributes: object) -> str:
        node = self.graph.node(op, inputs, domain=domain, output=output, **attributes)
        self.made.append(node)
        return str(node.output[0])

    def _add_codes(self, tensor: str, codes: Codes) -> None:
        """Remember a tensor's codes, and make the tensor itself from them for what reads it as float."""
        self.codes[tensor] = codes
        numbers = self._emit("Cast", [codes.name], to=1)
        scaled = self._emit("Mul", [numbers, self.graph.constant(codes.scale, np.float32)])
        self._emit("Add", [scaled, self.graph.constant(codes.offset, np.float32)], output=tensor)

    def _table(self, node: NodeProto) -> None:
        table, starts = self.graph.constants[node.input[0]], self.segments[node.input[0]]
        key = f"{node.input[0]}/codes"
        low = np.minimum.reduceat(table, starts, axis=0)
        scale = np.maximum((np.maximum.reduceat(table, starts, axis=0) - low) / 255, np.finfo(np.float32).tiny)
        if key not in self.graph.constants:
            of_row = np.repeat(np.arange(len(starts)), np.diff([*starts, len(table)]))
            self.graph.constants[key] = np.rint((table - low[of_row]) / scale[of_row]).clip(0, 255).astype(np.uint8)
        own = np.searchsorted(starts, _offsets(self.graph, node))
        name = self._emit("Gather", [key, node.input[1]], axis=0)
        self._add_codes(node.output[0], Codes(name, scale[own], low[own]))

    def _moves_codes(self, node: NodeProto) -> bool:
        if any(name not in self.graph.constants for name in node.input[1:]) and node.op_type != "Concat":
            return False
        if node.op_type in ("Gather", "Concat") and attribute(node, "axis", 0) < 1:
            return False
        coded = [name in self.codes for name in node.input]
        if node.op_type != "Concat":
            return coded[0]
        return any(coded) and all(own or name in self.ranges for own, name in zip(coded, node.input, strict=True))

    def _move(self, node: NodeProto) -> None:
        tensors = list(node.input) if node.op_type == "Concat" else [node.input[0]]
        parts = [self._coded(name) for name in tensors]
        rest = list(node.input[len(tensors) :])
        arrays = [self.graph.constants[name] for name in rest]
        moved = {part: computed(node, [*(getattr(own, part)[None] for own in parts), *arrays])[0] for part in ("scale", "offset")}
        copy = self.graph.node(node.op_type, [*(part.name for part in parts), *rest])
        copy.attribute.extend(node.attribute)
        self.made.append(copy)
        self._add_codes(node.output[0], Codes(str(copy.output[0]), **moved))

    def _coded(self, tensor: str) -> Codes:
        """The tensor's codes; of a float tensor, by its range: from 0 where no number is negative, around 0 otherwise."""
        if tensor not in self.codes:
            low, high = self.ranges[tensor]
            zero, most = (0, 255) if (low >= 0).all() else (128, 127)
            scale = np.maximum(np.maximum(np.abs(low), np.abs(high)) / most, 1e-12).astype(np.float32)
            scaled = self._emit("Mul", [tensor, self.graph.constant(1 / scale, np.float32)])
            one, point = self.graph.constant(1.0, np.float32), self.graph.constant(zero, np.uint8)
            self.codes[tensor] = Codes(self._emit("QuantizeLinear", [scaled, one, point]), scale, -scale * zero)
        return self.codes[tensor]

    def _layer(self, layer: Layer) -> None:
        codes = self._coded(layer.x)
        weight = layer.weight.astype(np.float64) * codes.scale.reshape(-1, 1)
        bias = layer.bias.astype(np.float64) + codes.offset.reshape(-1) @ layer.weight.astype(np.float64)
        if not layer.feeds_layers:
            output = self._emit_gemm(codes.name, weight, bias, [], output=str(layer.node.output[0]) if not layer.relu else "")
            if layer.relu:
                self._emit("Relu", [output], output=layer.y)
            return
        low, high = self.ranges[layer.y]
        if layer.relu:
            low = np.zeros_like(low)
        ratio = np.sqrt(np.where(high > low, high - low, 1.0))
        least, greatest = (low / ratio).min(), (high / ratio).max()
        step = max(greatest - least, 1e-12) / 255
        zero = int(np.clip(np.rint(-least / step), 0, 255))
        name = self._emit_gemm(
            codes.name, weight / ratio, bias / ratio, [self.graph.constant(step, np.float32), self.graph.constant(zero, np.uint8)]
        )
        self.codes[layer.y] = Codes(name, (step * ratio).astype(np.float32), (-zero * step * ratio).astype(np.float32))

    def _emit_gemm(self, codes: str, weight: Array, bias: Array, output_range: list[str], output: str = "") -> str:
        """QGemm of codes by float weights (in, out), which become int8."""
        scale = np.maximum(np.abs(weight).max(axis=0), 1e-12) / self.limit
        constant, whole_bias = self.graph.constant, np.rint(bias / scale).clip(-(2.0**31), 2.0**31 - 1)
        inputs = [
            *(codes, constant(1.0, np.float32), constant(0, np.uint8)),
            *(constant(np.rint(weight / scale), np.int8), constant(scale, np.float32), constant(np.zeros(len(scale)), np.int8)),
            *(constant(whole_bias, np.int32), *output_range),
        ]
        return self._emit("QGemm", inputs, domain=RUNTIME_DOMAIN, output=output)

    def _float(self, node: NodeProto) -> None:
        """A node that stays float; the scales of coded rows fold into a constant matrix that they are multiplied by."""
        weight = _weight(self.graph, node)
        codes = self.codes.get(node.input[0]) if node.input else None
        if weight is None or codes is None or codes.scale.ndim != 1:
            self.made.append(node)
            return
        numbers = self._emit("Cast", [codes.name], to=1)
        bias = self.graph.constants[node.input[2]] if len(node.input) > 2 else np.zeros(weight.shape[1])
        folded = bias + codes.offset @ weight.astype(np.float64)
        names = [self.graph.constant(weight * codes.scale[:, None], np.float32), self.graph.constant(folded, np.float32)]
        self._emit("Gemm", [numbers, *names], output=str(node.output[0]))


def _is_table(graph: Graph, node: NodeProto) -> bool:
    """Whether a node looks up rows of more than one number in a constant table."""
    if node.op_type != "Gather" or attribute(node, "axis", 0) != 0 or node.input[1] in graph.constants:
        return False
    table = graph.constants.get(node.input[0])
    return table is not None and table.ndim == 2 and table.dtype == np.float32 and table.shape[1] > 1


def _offsets(graph: Graph, node: NodeProto) -> Array:
    """Where each looked-up field's rows start: the constant that is added to the ids."""
    maker = graph.makers().get(node.input[1])
    added = [graph.constants[name] for name in maker.input if name in graph.constants] if maker and maker.op_type == "Add" else []
    return added[0].reshape(-1) if added else np.zeros(1, np.int64)


def _segments(graph: Graph) -> dict[str, Array]:
    """{table: first rows of its fields}, from all its look-ups."""
    starts: dict[str, set[int]] = {}
    for node in graph.nodes:
        if _is_table(graph, node):
            starts.setdefault(node.input[0], {0}).update(_offsets(graph, node).tolist())
    return {name: np.array(sorted(own)) for name, own in starts.items()}
