"""A graph for the candidates of one user: the user's fields are an input of one row, computed with once.

Every tensor that has a row's fields side by side is held as two: of the user, (1, ...), and of the candidates, (N, ...), with the
positions that each has along axis 1. A linear layer then is W_u x_u once and W_i x_i for each candidate, the former as the bias
of the latter, in integers exactly (int32). Sums over fields split alike. Whatever else reads such a tensor reads the two joined.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper

from ctrlab.errors import ConfigError
from ctrlab.serving.graph import Array, Graph, attribute, save

#: Operators that treat numbers one by one, with constants along the fields.
_ELEMENTWISE = {"Add", "Mul", "Sub", "Div", "Cast", "QuantizeLinear"}


@dataclass(frozen=True, eq=False)
class Halves:
    """A tensor of `rank` axes as the user's part and the candidates', and the positions of each along axis 1."""

    user: str
    item: str
    user_places: Array
    item_places: Array
    rank: int = 2

    @property
    def parts(self) -> tuple[tuple[str, Array], tuple[str, Array]]:
        """(tensor, positions) of both."""
        return (self.user, self.user_places), (self.item, self.item_places)


def with_user_once(model: onnx.ModelProto, user_fields: Sequence[int], user_values: Sequence[int] = ()) -> onnx.ModelProto:
    """The model with inputs `user_ids` (1, fields) and `ids` (N, the others), and `user_values` and `values` likewise.

    Args:
        model: a graph of `export_onnx` or `export_integers`.
        user_fields: columns of `ids` that are the user's. user_values: columns of `values` that are.

    Raises:
        ConfigError: a column is not in the model, or one side has none.
    """
    graph = Graph(model)
    splitting = _Splitting(graph)
    inputs = []
    for value, own in ((value, {"ids": user_fields, "values": user_values}.get(value.name)) for value in model.graph.input):
        if own is None:
            raise ConfigError(f"the model reads {value.name}, which cannot be split into user and candidate; serve it without")
        inputs += splitting.split_input(value, np.unique(np.asarray(own, np.int64)))
    splitting.run()
    return graph.to_model(inputs)


def write_with_user_once(files: Sequence[Path], user_fields: Sequence[int], user_values: Sequence[int] = ()) -> list[Path]:
    """The files, rewritten by `with_user_once` as `<name>-user.onnx` beside them."""
    made = []
    for path in files:
        made.append(path.with_name(f"{path.stem}-user.onnx"))
        save(with_user_once(onnx.load(str(path)), user_fields, user_values), made[-1])
    return made


class _Splitting:
    """One pass over the nodes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.halves: dict[str, Halves] = {}
        self.made: list[NodeProto] = []
        self.joined: set[str] = set()
        self.makers = graph.makers()
        self.widths: dict[str, int] = {}

    def split_input(self, value: onnx.ValueInfoProto, user: Array) -> list[onnx.ValueInfoProto]:
        """The new inputs of one input."""
        width, kind = value.type.tensor_type.shape.dim[1].dim_value, value.type.tensor_type.elem_type
        if len(user) and (user[0] < 0 or user[-1] >= width):
            raise ConfigError(f"the user's {value.name} must be columns 0 to {width - 1}, got {user.tolist()}")
        self.widths[value.name] = width
        items = np.setdiff1d(np.arange(width), user)
        if value.name == "ids" and not (len(user) and len(items)):
            raise ConfigError("give at least one field to the user and leave at least one to the candidates")
        if not len(user):
            return [value]
        name = f"user_{value.name}"
        own = helper.make_tensor_value_info(name, kind, [1, len(user)])
        rest = helper.make_tensor_value_info(value.name, kind, ["batch", len(items)])
        self.halves[value.name] = Halves(name, value.name, user, items)
        return [own, rest]

    def run(self) -> None:
        """In place: the new nodes."""
        for node in self.graph.nodes:
            if not any(name in self.halves for name in node.input):
                self.made.append(node)
            elif not self._split(node):
                self._join(node)
        self.graph.nodes = self.made

    def _emit(self, op: str, inputs: Sequence[str], *, domain: str = "", output: str = "", **attributes: object) -> str:
        node = self.graph.node(op, inputs, domain=domain, output=output, **attributes)
        self.made.append(node)
        return str(node.output[0])

    def _split(self, node: NodeProto) -> bool:
        """Whether the node was made for both parts."""
        rules = {
            "Gather": self._gather,
            "Slice": self._slice,
            "Flatten": self._flatten,
            "Concat": self._concat,
            "Gemm": self._product,
            "MatMul": self._product,
            "QGemm": self._integer_product,
            "ReduceSum": self._sum,
        }
        rule = self._elementwise if node.op_type in _ELEMENTWISE else rules.get(node.op_type)
        return rule is not None and rule(node)

    def _copy(self, node: NodeProto, inputs: Sequence[str]) -> str:
        copy = self.graph.node(node.op_type, inputs, domain=node.domain)
        copy.attribute.extend(node.attribute)
        self.made.append(copy)
        return str(copy.output[0])

    def _gather(self, node: NodeProto) -> bool:
        """Columns of the fields, or rows of a table."""
        data, places = node.input
        if data in self.halves and places in self.graph.constants and attribute(node, "axis", 0) == 1:
            return self._columns(node)
        if places not in self.halves or data not in self.graph.constants or attribute(node, "axis", 0) != 0:
            return False
        halves = self.halves[places]
        made = [self._copy(node, [data, part]) for part, _ in halves.parts]
        self.halves[node.output[0]] = Halves(made[0], made[1], halves.user_places, halves.item_places, halves.rank + 1)
        return True

    def _slice(self, node: NodeProto) -> bool:
        """Columns between two places."""
        rest = [self.graph.constants.get(name) for name in node.input[1:]]
        if node.input[0] not in self.halves or any(own is None or own.size != 1 for own in rest) or len(rest) < 3:
            return False
        start, end, axis, step = (int(own.reshape(-1)[0]) for own in [*rest, np.array(1)][:4] if own is not None)
        return axis == 1 and self._chosen(node, np.arange(self._width(node.input[0]) or 0)[start:end:step])

    def _columns(self, node: NodeProto) -> bool:
        wanted = self.graph.constants[node.input[1]]
        return wanted.ndim == 1 and self._chosen(node, wanted)

    def _chosen(self, node: NodeProto, wanted: Array) -> bool:
        halves = self.halves[node.input[0]]
        made, places = [], []
        for part, own in halves.parts:
            found = np.flatnonzero(np.isin(wanted, own))
            made.append(self._emit("Gather", [part, self.graph.constant(_index(own, wanted[found]), np.int64)], axis=1))
            places.append(found)
        self.halves[node.output[0]] = Halves(made[0], made[1], places[0], places[1], halves.rank)
        return True

    def _elementwise(self, node: NodeProto) -> bool:
        """With constants, or with a tensor that is split alike."""
        split = [self.halves[name] for name in node.input if name in self.halves]
        known = all(name in self.halves or name in self.graph.constants for name in node.input)
        if not known or any(not np.array_equal(own.user_places, split[0].user_places) for own in split):
            return False
        made = []
        for number, (_, places) in enumerate(split[0].parts):
            inputs = [
                self.halves[name].parts[number][0] if name in self.halves else self._constant_at(name, places, split[0].rank)
                for name in node.input
            ]
            made.append(self._copy(node, inputs))
        self.halves[node.output[0]] = Halves(made[0], made[1], split[0].user_places, split[0].item_places, split[0].rank)
        return True

    def _constant_at(self, name: str, places: Array, rank: int) -> str:
        """The part of a constant along the fields; itself where it is the same for all of them."""
        values = self.graph.constants[name]
        axis = values.ndim - (rank - 1)
        if axis < 0 or values.shape[axis] == 1:
            return name
        return self.graph.constant(values.take(places, axis=axis), values.dtype)

    def _flatten(self, node: NodeProto) -> bool:
        """(., F, w) -> (., F w)."""
        halves, width = self.halves[node.input[0]], self._width_behind(node)
        if width is None:
            return False
        made, places = [], []
        for part, own in halves.parts:
            made.append(self._emit("Flatten", [part], axis=1))
            places.append((own[:, None] * width + np.arange(width)).reshape(-1))
        self.halves[node.output[0]] = Halves(made[0], made[1], places[0], places[1])
        return True

    def _width_behind(self, node: NodeProto) -> int | None:
        """Numbers of a field, where the node flattens rows of a table."""
        maker = self.makers.get(node.input[0])
        while maker is not None and maker.op_type in _ELEMENTWISE:
            maker = self.makers.get(maker.input[0])
        flat = node.op_type == "Flatten" and attribute(node, "axis", 1) == 1
        if maker is None or maker.op_type != "Gather" or not flat or maker.input[0] not in self.graph.constants:
            return None
        return int(self.graph.constants[maker.input[0]].shape[1])

    def _concat(self, node: NodeProto) -> bool:
        """Along the fields; a tensor that is not split belongs to the candidates."""
        if attribute(node, "axis", 0) != 1:
            return False
        widths = [self._width(name) for name in node.input]
        if None in widths:
            return False
        user: list[str] = []
        items: list[str] = []
        user_places, item_places, start = [], [], 0
        for name, width in zip(node.input, widths, strict=True):
            halves = self.halves.get(name)
            if halves is None:
                items.append(name)
                item_places.append(np.arange(width or 0) + start)
            else:
                user.append(halves.user)
                items.append(halves.item)
                user_places.append(halves.user_places + start)
                item_places.append(halves.item_places + start)
            start += width or 0
        made = [self._emit("Concat", parts, axis=1) for parts in (user, items)]
        rank = max(self.halves[name].rank for name in node.input if name in self.halves)
        self.halves[node.output[0]] = Halves(made[0], made[1], np.concatenate(user_places), np.concatenate(item_places), rank)
        return True

    def _width(self, name: str) -> int | None:
        """Columns of a tensor; None where they are not known."""
        if name in self.halves:
            return len(self.halves[name].user_places) + len(self.halves[name].item_places)
        if name in self.widths:
            return self.widths[name]
        maker = self.makers.get(name)
        variable = [own for own in maker.input if own not in self.graph.constants] if maker else []
        return self._width(variable[0]) if maker and maker.op_type in _ELEMENTWISE and len(variable) == 1 else None

    def _product(self, node: NodeProto) -> bool:
        """x W + b: the user's part of it is the bias of the candidates'."""
        halves = self.halves.get(node.input[0])
        weight = self.graph.constants.get(node.input[1])
        if halves is None or halves.rank != 2 or weight is None or (node.op_type == "Gemm" and len(node.input) < 3):
            return False
        axis = 1 if attribute(node, "transB", 0) else 0
        user, item = (self.graph.constant(weight.take(places, axis=axis), weight.dtype) for _, places in halves.parts)
        if node.op_type == "MatMul":
            sums = [self._emit("MatMul", [part, own]) for part, own in ((halves.user, user), (halves.item, item))]
            self._emit("Add", sums, output=node.output[0])
            return True
        once = self._emit("Gemm", [halves.user, user, node.input[2]], transB=axis)
        self._emit("Gemm", [halves.item, item, once], output=node.output[0], transB=axis)
        return True

    def _integer_product(self, node: NodeProto) -> bool:
        """The same in integers, exactly: the user's sum is added to the bias in int32."""
        halves = self.halves.get(node.input[0])
        if halves is None:
            return False
        weight = self.graph.constants[node.input[3]]
        user, item = (self.graph.constant(weight.take(places, axis=0), weight.dtype) for _, places in halves.parts)
        once = self._emit("Add", [self._emit("MatMulInteger", [halves.user, user, node.input[2]]), node.input[6]])
        inputs = [halves.item, node.input[1], node.input[2], item, node.input[4], node.input[5], once, *node.input[7:]]
        copy = self.graph.node("QGemm", inputs, domain=node.domain, output=node.output[0])
        copy.attribute.extend(node.attribute)
        self.made.append(copy)
        return True

    def _sum(self, node: NodeProto) -> bool:
        """Over the fields: the sum of both sums."""
        axes = self.graph.constants.get(node.input[1]) if len(node.input) > 1 else None
        if axes is None or node.input[0] not in self.halves or 1 not in axes.tolist() or 0 in axes.tolist():
            return False
        sums = [self._copy(node, [part, node.input[1]]) for part, _ in self.halves[node.input[0]].parts]
        self._emit("Add", sums, output=node.output[0])
        return True

    def _join(self, node: NodeProto) -> None:
        """The node as it was, on the two parts joined again."""
        for name in node.input:
            if name in self.halves and name not in self.joined:
                self._emit_joined(name)
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [f"{name}/joined" if name in self.halves else name for name in node.input]
        self.made.append(copy)

    def _emit_joined(self, name: str) -> None:
        halves = self.halves[name]
        self.joined.add(name)
        rows = self._emit("Shape", [halves.item], start=0, end=1)
        rest = self._emit("Shape", [halves.user], start=1)
        user = self._emit("Expand", [halves.user, self._emit("Concat", [rows, rest], axis=0)])
        both = self._emit("Concat", [user, halves.item], axis=1)
        order = np.concatenate([halves.user_places, halves.item_places]).argsort()
        self._emit("Gather", [both, self.graph.constant(order, np.int64)], axis=1, output=f"{name}/joined")


def _index(places: Array, wanted: Array) -> Array:
    """Where each of `wanted` is in `places`."""
    order = np.argsort(places)
    found: Array = order[np.searchsorted(places, wanted, sorter=order)]
    return found
