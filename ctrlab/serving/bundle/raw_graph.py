"""A model's ONNX graph with its encoder in front: raw values in, probability out.

Texts are looked up by `LabelEncoder` of ai.onnx.ml, which knows the words that mean "missing" beside the vocabulary; everything
else takes the id for values out of vocabulary. Numbers in buckets become the number of borders at or below them. Only
operators of the ONNX standard are used, in double precision where the encoder computes in it.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, compose, helper, numpy_helper

from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.fields import Field, ListField, TextField
from ctrlab.data.encoding.fields.buckets import ClockField, CriteoField
from ctrlab.data.encoding.fields.numbers import NumberField, QuantileField
from ctrlab.data.schema import MISSING_ID, OUT_OF_VOCABULARY_ID
from ctrlab.data.tables.cells import canonical_text
from ctrlab.serving.bundle.columns import FIRST_WEEKDAY, Column

ML_DOMAIN, ML_OPSET = "ai.onnx.ml", 4
PROBABILITY = "probability"
#: Words of more letters are known in lower case, in capitals and capitalised; shorter ones in every spelling.
_EVERY_CASE = 4
_INPUTS = {"ids": TensorProto.INT32, "values": TensorProto.FLOAT, "lists": TensorProto.INT32}


@dataclass(frozen=True)
class Calibration:
    """The logit that is served is slope * logit + intercept."""

    slope: float = 1.0
    intercept: float = 0.0


def raw_model(
    body: onnx.ModelProto, columns: Sequence[Column], encoder: FieldEncoder, calibration: Calibration | None = None
) -> onnx.ModelProto:
    """The model that reads raw values.

    Args:
        body: reads `ids`, `values` and `lists`, gives `logits`.
        columns: the raw columns that become inputs, of their names.

    Returns:
        a model with the inputs of `columns.MEANINGS` and the output `probability` float32 (rows,).
    """
    names = {column.name for column in columns}
    prefix = _free_prefix(names)
    body = compose.add_prefix(body, prefix)
    nodes = _Nodes(prefix + "encoder/")
    fields = [(own, column.name) for column in columns for own in column.fields]
    encoded = _steps(nodes, [(own, name) for own, name in fields if isinstance(own, QuantileField | CriteoField)])
    encoded |= {own.name: _encoded(nodes, own, name) for own, name in fields if own.name not in encoded}
    wanted = {value.name.removeprefix(prefix) for value in body.graph.input}
    parts: dict[str, Sequence[Field]] = {"ids": encoder.id_fields, "values": encoder.value_fields, "lists": encoder.list_fields}
    for part in _INPUTS:
        if part in wanted:
            joined = nodes("Concat", [encoded[own.name] for own in parts[part]], axis=1)
            nodes("Cast", [joined], output=prefix + part, to=_INPUTS[part])
    logits = prefix + "logits"
    tail = _Nodes(prefix + "probability/")
    if calibration is not None:
        scaled = tail("Mul", [logits, tail.constant(np.float32(calibration.slope))])
        logits = tail("Add", [scaled, tail.constant(np.float32(calibration.intercept))])
    output = next(name for n in itertools.count() if (name := PROBABILITY + "_" * n) not in names)
    tail("Sigmoid", [logits], output=output)
    graph = helper.make_graph(
        [*nodes.made, *body.graph.node, *tail.made], "ctrlab", [_input(column) for column in columns],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows"])],
        [*nodes.constants, *body.graph.initializer, *tail.constants],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[*body.opset_import, helper.make_opsetid(ML_DOMAIN, ML_OPSET)])
    model.ir_version = body.ir_version
    return model


def _free_prefix(names: Iterable[str]) -> str:
    """What no column's name begins with."""
    prefix = "model/"
    while any(name.startswith(prefix) for name in names):
        prefix = f"_{prefix}"
    return prefix


def _input(column: Column) -> onnx.ValueInfoProto:
    kind = TensorProto.STRING if column.kind in ("text", "list") else TensorProto.DOUBLE
    return helper.make_tensor_value_info(column.name, kind, ["rows", None] if column.kind == "list" else ["rows"])


@dataclass
class _Nodes:
    """Nodes and constants under names of their own."""

    prefix: str
    made: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def __call__(self, op: str, inputs: Sequence[str], *, output: str = "", domain: str = "", **attributes: Any) -> str:
        name = output or f"{self.prefix}{op}_{len(self.made)}"
        self.made.append(helper.make_node(op, list(inputs), [name], domain=domain, **attributes))
        return name

    def several(self, op: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """A node of several outputs."""
        names = [f"{self.prefix}{op}_{len(self.made)}_{number}" for number in range(outputs)]
        self.made.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def constant(self, values: Any) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def column(self, tensor: str) -> str:
        """(rows,) -> (rows, 1)."""
        return self("Unsqueeze", [tensor, self.constant(np.array([1], np.int64))])


def _encoded(nodes: _Nodes, own: Field, column: str) -> str:
    """The name of the encoded field: ids int64 or values float32, (rows, width)."""
    encode: dict[type, Callable[[_Nodes, Any, str], str]] = {
        TextField: _text, ListField: _list, NumberField: _number, ClockField: _clock,
    }  # fmt: skip
    return encode[type(own)](nodes, own, column)


def _text(nodes: _Nodes, own: TextField, column: str) -> str:
    return nodes.column(_looked_up(nodes, own, column))


def _looked_up(nodes: _Nodes, own: TextField | ListField, texts: str) -> str:
    """Ids of texts of any shape."""
    ids = ids_of_texts(own)
    return nodes(
        "LabelEncoder", [texts], domain=ML_DOMAIN,
        keys_tensor=numpy_helper.from_array(np.array(list(ids), object), "keys"),
        values_tensor=numpy_helper.from_array(np.array(list(ids.values()), np.int64), "values"),
        default_tensor=numpy_helper.from_array(np.array([OUT_OF_VOCABULARY_ID], np.int64), "default"),
    )  # fmt: skip


def ids_of_texts(own: TextField | ListField) -> dict[str, int]:
    """{text: id} of a vocabulary, with other spellings of its texts, and of the words that mean "missing"."""
    texts = own.vocabulary.to_list()
    ids = dict(zip(texts, range(MISSING_ID + 1, MISSING_ID + 1 + len(texts)), strict=True))
    elements = own.elements if isinstance(own, ListField) else own
    ids = {alias: ids[text] for alias, text in elements.aliases.items()} | ids
    for text in list(ids):
        for spelling in (f"{text}.0", f"-{text}", f"-{text}.0"):  # 12.0 and -0
            if canonical_text(spelling, own.rules) == text:
                ids.setdefault(spelling, ids[text])
    for spelling in itertools.chain.from_iterable(map(_spellings, own.rules.words)):
        ids[spelling] = MISSING_ID
    return ids


def _spellings(word: str) -> Iterable[str]:
    letters = sum(map(str.isalpha, word))
    if letters > _EVERY_CASE:
        return {word, word.upper(), word.title(), word.capitalize()}
    return {"".join(spelling) for spelling in itertools.product(*({char.lower(), char.upper()} for char in word))}


def _list(nodes: _Nodes, own: ListField, column: str) -> str:
    """The last `max_length` elements that are not missing, then padding: an element's place is counted, and its id put there."""
    ids = _looked_up(nodes, own, column)  # (rows, n)
    kept = nodes("Cast", [nodes("Not", [nodes("Equal", [ids, nodes.constant(np.int64(MISSING_ID))])])], to=TensorProto.INT64)
    axis = nodes.constant(np.array([1], np.int64))
    counted = nodes("CumSum", [kept, nodes.constant(np.int64(1))])
    total = nodes("ReduceSum", [kept, axis], keepdims=1)
    dropped = nodes("Max", [nodes("Sub", [total, nodes.constant(np.int64(own.max_length))]), nodes.constant(np.int64(0))])
    # Places count from 1; a missing element has place 0 and is put nowhere.
    place = nodes("Mul", [nodes("Sub", [counted, dropped]), kept])
    at = nodes("Equal", [nodes("Unsqueeze", [place, axis]), nodes.constant(np.arange(1, own.max_length + 1)[None, :, None])])
    there = nodes("Cast", [at], to=TensorProto.INT64)  # (rows, length, n)
    last = nodes.constant(np.array([2], np.int64))
    shifted = nodes("Mul", [nodes("Unsqueeze", [nodes("Sub", [ids, nodes.constant(np.int64(MISSING_ID))]), axis]), there])
    return nodes("Add", [nodes("ReduceSum", [shifted, last], keepdims=0), nodes.constant(np.int64(MISSING_ID))])


def _finite(nodes: _Nodes, own: Field, column: str) -> tuple[str, str]:
    """A number with 0 in place of a missing or infinite one, and whether it is missing."""
    missing = nodes("Or", [nodes("IsNaN", [column]), nodes("IsInf", [column])])
    for word in own.rules.missing_words:  # a number, such as -999, may be a word for "missing"
        try:
            number = float(word)
        except ValueError:
            continue
        if np.isfinite(number):
            missing = nodes("Or", [missing, nodes("Equal", [column, nodes.constant(np.float64(number))])])
    return nodes("Where", [missing, nodes.constant(np.float64(0)), column]), missing


def _number(nodes: _Nodes, own: NumberField, column: str) -> str:
    number, missing = _finite(nodes, own, column)
    if own.log:
        grown = nodes("Log", [nodes("Add", [nodes("Abs", [number]), nodes.constant(np.float64(1))])])
        number = nodes("Mul", [nodes("Sign", [number]), grown])
    shifted = nodes("Sub", [number, nodes.constant(np.float64(own.mean))])
    value = nodes("Cast", [nodes("Div", [shifted, nodes.constant(np.float64(own.std))])], to=TensorProto.FLOAT)
    return nodes.column(nodes("Where", [missing, nodes.constant(np.float32(0)), value]))


def _steps(nodes: _Nodes, fields: Sequence[tuple[QuantileField | CriteoField, str]]) -> dict[str, str]:
    """{field: its ids} of all fields of steps, computed as one table: a graph with few nodes is fast also for one row."""
    if not fields:
        return {}
    steps = [steps_of(own) for own, _ in fields]
    width = max(len(borders) for borders, _ in steps)
    # Borders at infinity are reached by no number: infinite ones count as missing.
    borders = np.full((len(fields), width), np.inf)
    for row, (own, _) in zip(borders, steps, strict=True):
        row[: len(own)] = own
    starts = np.cumsum([0, *(len(ids) for _, ids in steps[:-1])])
    finite = [_finite(nodes, own, name) for own, name in fields]
    numbers = nodes("Concat", [nodes.column(number) for number, _ in finite], axis=1)
    missing = nodes("Concat", [nodes.column(one) for _, one in finite], axis=1)
    last = nodes.constant(np.array([2], np.int64))
    below = nodes("LessOrEqual", [nodes.constant(borders[None]), nodes("Unsqueeze", [numbers, last])])
    # Counted in float32, which is exact up to 16 million and the fastest sum.
    counted = nodes("ReduceSum", [nodes("Cast", [below], to=TensorProto.FLOAT), last], keepdims=0)
    places = nodes("Add", [nodes("Cast", [counted], to=TensorProto.INT64), nodes.constant(starts[None].astype(np.int64))])
    found = nodes("Gather", [nodes.constant(np.concatenate([ids for _, ids in steps]).astype(np.int64)), places])
    ids = nodes("Where", [missing, nodes.constant(np.int64(MISSING_ID)), found])
    if len(fields) == 1:
        return {fields[0][0].name: ids}
    names = nodes.several("Split", [ids], len(fields), axis=1, num_outputs=len(fields))
    return {own.name: name for (own, _), name in zip(fields, names, strict=True)}


def steps_of(own: QuantileField | CriteoField) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The id of a number as a function of steps: borders (k,), ids (k + 1,); the id is that after the last border at or below it.

    The borders are those doubles at which the encoder itself changes, whatever it computes.
    """
    if isinstance(own, QuantileField):
        return np.nextafter(own.borders, np.inf), np.arange(MISSING_ID + 1, MISSING_ID + 2 + len(own.borders))
    # Codes grow with the number: where each begins is found by halving the range of all doubles, which their bits order.
    codes = np.arange(2, own.num_buckets + 1)
    low = np.full(len(codes), _ordered(np.array([-1e300]))[0])
    high = np.full(len(codes), _ordered(np.array([1e300]))[0])
    reached = own.parse_numbers(np.array([1e300]))[0] >= codes
    for _ in range(64):
        middle = low // 2 + high // 2 + (low % 2 + high % 2) // 2
        above = own.parse_numbers(_doubles(middle)) >= codes
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    borders, codes = _doubles(high[reached]), codes[reached]
    ids = own.encode(np.concatenate([[1], codes]).astype(np.int16)).astype(np.int64)
    # Of codes that begin at one number only the last can occur; neighbours of one id need no border.
    kept = [place for place in range(len(borders)) if place + 1 == len(borders) or borders[place + 1] > borders[place]]
    borders, ids = borders[kept], ids[[0, *(place + 1 for place in kept)]]
    changes = np.flatnonzero(ids[1:] != ids[:-1])
    return borders[changes], ids[[0, *(changes + 1)]]


def _ordered(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers in the order of the doubles."""
    bits = numbers.view(np.int64)
    return np.where(bits < 0, np.int64(-(2**63)) - bits, bits)


def _doubles(ordered: NDArray[np.int64]) -> NDArray[np.float64]:
    """The inverse of `_ordered`."""
    return np.where(ordered < 0, np.int64(-(2**63)) - ordered, ordered).view(np.float64)


def _clock(nodes: _Nodes, own: ClockField, column: str) -> str:
    number, missing = _finite(nodes, own, column)
    seconds = nodes("Cast", [nodes("Floor", [number])], to=TensorProto.INT64)
    day = nodes.constant(np.int64(86_400))
    of_day = nodes("Mod", [seconds, day])
    if own.unit == "hour":
        bucket = nodes("Div", [of_day, nodes.constant(np.int64(3_600))])
    else:
        days = nodes("Div", [nodes("Sub", [seconds, of_day]), day])
        bucket = nodes("Mod", [nodes("Add", [days, nodes.constant(np.int64(FIRST_WEEKDAY))]), nodes.constant(np.int64(7))])
    ids = nodes("Gather", [nodes.constant(own.ids[1:].astype(np.int64)), bucket])
    return nodes.column(nodes("Where", [missing, nodes.constant(np.int64(MISSING_ID)), ids]))
