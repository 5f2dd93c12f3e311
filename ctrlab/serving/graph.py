"""An ONNX graph to be rewritten: nodes in order, constants as numpy arrays, and who makes and reads a tensor."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]
#: Of operators outside the ONNX standard: those of ONNX Runtime.
RUNTIME_DOMAIN = "com.microsoft"


class Graph:
    """A model's graph.

    nodes: in an order in which each comes after those it reads. constants: {tensor: its values}.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = [value.name for value in model.graph.output]
        self.constants: dict[str, Array] = {own.name: numpy_helper.to_array(own) for own in model.graph.initializer}
        self.nodes: list[NodeProto] = []
        for node in model.graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]
            else:
                self.nodes.append(node)
        self._taken = {*self.constants, *self.inputs, *(name for node in self.nodes for name in node.output)}

    @classmethod
    def load(cls, path: str | Path) -> "Graph":
        """The graph of a file."""
        return cls(onnx.load(str(path)))

    def makers(self) -> dict[str, NodeProto]:
        """{tensor: the node that makes it}."""
        return {output: node for node in self.nodes for output in node.output}

    def readers(self) -> dict[str, list[NodeProto]]:
        """{tensor: the nodes that read it}."""
        found: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                found[name].append(node)
        return found

    def constant(self, values: Any, dtype: Any = None) -> str:
        """The name of a new constant."""
        name = self._new_name("constant")
        self.constants[name] = np.asarray(values, dtype=dtype)
        return name

    def node(self, op: str, inputs: Sequence[str], *, domain: str = "", output: str = "", **attributes: Any) -> NodeProto:
        """A node with one output, which is not in the graph yet; the output gets a new name if none is given."""
        return helper.make_node(op, list(inputs), [output or self._new_name(op)], domain=domain, **attributes)

    def _new_name(self, kind: str) -> str:
        name = next(
            name for number in itertools.count(len(self._taken)) if (name := f"ctrlab/{kind}_{number}") not in self._taken
        )
        self._taken.add(name)
        return name

    def to_model(self, inputs: Sequence[onnx.ValueInfoProto] | None = None) -> onnx.ModelProto:
        """The graph as a model, without nodes and constants that no output needs; with other inputs where they are given."""
        kept = self._needed(self.outputs)
        read = {name for node in kept for name in node.input}
        initializers = [numpy_helper.from_array(values, name) for name, values in self.constants.items() if name in read]
        inputs = list(self._model.graph.input) if inputs is None else list(inputs)
        graph = helper.make_graph(kept, "ctrlab", inputs, list(self._model.graph.output), initializers)
        opsets = [*self._model.opset_import]
        if any(node.domain == RUNTIME_DOMAIN for node in kept) and not any(o.domain == RUNTIME_DOMAIN for o in opsets):
            opsets.append(helper.make_opsetid(RUNTIME_DOMAIN, 1))
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = self._model.ir_version
        return model

    def _needed(self, outputs: Sequence[str]) -> list[NodeProto]:
        wanted, kept = set(outputs), []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                kept.append(node)
        return kept[::-1]

    def run(self, tensors: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """{tensor: its values} for these inputs, by ONNX Runtime."""
        return self.runner(tensors)(feeds)

    def runner(self, tensors: Sequence[str]) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
        """A function of the inputs that computes these tensors, as often as wanted."""
        known = {name: self.constants[name] for name in tensors if name in self.constants}
        wanted = [name for name in dict.fromkeys(tensors) if name not in known]
        if not wanted:
            return lambda feeds: known
        model = self.to_model() if set(wanted) <= set(self.outputs) else self._with_outputs(wanted)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]

        def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
            return known | dict(zip(wanted, session.run(wanted, {name: feeds[name] for name in names}), strict=True))

        return run

    def _with_outputs(self, tensors: Sequence[str]) -> onnx.ModelProto:
        kept = self._needed(tensors)
        read = {name for node in kept for name in node.input} | set(tensors)
        initializers = [numpy_helper.from_array(values, name) for name, values in self.constants.items() if name in read]
        inputs = [value for value in self._model.graph.input if value.name in read]
        outputs = [helper.make_empty_tensor_value_info(name) for name in tensors]
        model = helper.make_model(
            helper.make_graph(kept, "ctrlab", inputs, outputs, initializers), opset_imports=[*self._model.opset_import]
        )
        model.ir_version = self._model.ir_version
        return model


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute."""
    return next((helper.get_attribute_value(own) for own in node.attribute if own.name == name), default)


def computed(node: NodeProto, inputs: Sequence[Array]) -> Array:
    """What a node of the ONNX standard makes of these arrays."""
    outputs: Any = ReferenceEvaluator(node).run(None, dict(zip(node.input, inputs, strict=True)))
    return np.asarray(outputs[0])


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, atomically."""
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(model.SerializeToString())
    unfinished.replace(path)
