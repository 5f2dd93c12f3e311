"""The encoder as an ONNX graph gives the ids and values that the encoder itself gives, in front of every architecture."""

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.compression.fold import serving_form
from ctrlab.compression.quantize import quantize
from ctrlab.compression.surgery import compress_model
from ctrlab.data.encoding.encoder import EncodedBlock, FieldEncoder
from ctrlab.data.encoding.fields import ListField, TextField
from ctrlab.data.encoding.fields.buckets import ClockField, CriteoField
from ctrlab.data.encoding.fields.numbers import NumberField, QuantileField
from ctrlab.data.tables.cells import CellRules
from ctrlab.data.tables.list_cells import Notation
from ctrlab.models.configs import MODELS
from ctrlab.plans.configs import CompressionSpec
from ctrlab.serving.bundle.columns import columns_of, inputs_of_rows, inputs_of_texts
from ctrlab.serving.bundle.raw_graph import Calibration, raw_model, steps_of
from ctrlab.serving.integer_export import Limits, export_integers
from tests.support.onnx import onnx_file, run_onnx
from tests.support.small_models import MemoryDataset, make_model, random_fields, spectra_of


def small_encoder():
    """An encoder of the schema that the small models are built for."""
    vocabularies = {"site": 48, "device": 38, "ad": 298}
    fields = [TextField(name, name, 1) for name in vocabularies]
    for own in fields:
        own.set_vocabulary(pl.Series([f"{own.name}{number}" for number in range(vocabularies[own.name])]))
    numbers = [NumberField("age", "age", False), NumberField("price", "price", True)]
    for place, own in enumerate(numbers):
        own.mean, own.std = 0.3 + place, 1.7
    lists = [ListField("seen", "seen", 1, Notation("|"), 4, "ad"), ListField("tags", "tags", 1, Notation("|"), 3, None)]
    lists[1].set_vocabulary(pl.Series([f"t{number}" for number in range(58)]))
    return FieldEncoder([*fields, *numbers, *lists])


ENCODER = small_encoder()


def probabilities(model, feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})[0]


def assert_raw_rows_give_the_models_probabilities(model, lists, body=None, atol=1e-6):
    fields = random_fields(64)
    block = EncodedBlock(*(np.asarray(part) for part in fields))
    columns = columns_of(ENCODER, lists=lists)
    found = probabilities(
        raw_model(onnx.load_from_string(body or onnx_file(model)), columns, ENCODER), inputs_of_rows(columns, ENCODER, block)
    )
    expected = 1 / (1 + np.exp(-run_onnx(model, fields)))
    np.testing.assert_allclose(found, expected, atol=atol)


@pytest.mark.parametrize("architecture", sorted(entry.name for entry in MODELS))
def test_every_architecture_scores_raw_rows_as_it_scores_their_ids(architecture):
    model = make_model(architecture)
    assert_raw_rows_give_the_models_probabilities(model, model.reads_lists)


def test_compressed_quantised_and_integer_models_score_raw_rows_as_their_ids(tmp_path):
    model = make_model("deepfm")
    compressed = serving_form(compress_model(model, CompressionSpec.of({"mlp.2": 9, "embedding.ad": 3}), spectra_of(model)).model)
    assert_raw_rows_give_the_models_probabilities(compressed, False)
    assert_raw_rows_give_the_models_probabilities(quantize(compressed, "int8"), False)
    wide = make_model("deepfm", mlp_dims=(64, 48))
    form = export_integers(
        wide, tmp_path / "integers.onnx", MemoryDataset().split("train"), MemoryDataset().split("valid"),
        limits=Limits(probability=1.0, auc_loss=1.0),
    )  # fmt: skip
    assert form.layers
    assert_raw_rows_give_the_models_probabilities(
        wide, False, (tmp_path / "integers.onnx").read_bytes(), form.largest_change + 0.01
    )


def echo(field):
    """A model that gives the ids, or values, of one field: only its encoder computes."""
    part, kind = {"ids": ("ids", onnx.TensorProto.INT32), "values": ("values", onnx.TensorProto.FLOAT)}.get(
        field.output, ("lists", onnx.TensorProto.INT32)
    )
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Cast", [part], ["as_float"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Identity", ["as_float"], ["logits"]),
        ],
        "echo", [onnx.helper.make_tensor_value_info(part, kind, ["rows", None])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["rows", None])],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def encoded_by_graph(field, cells):
    """What the graph makes of the inputs of one field: ids and values are read back before the sigmoid."""
    encoder = FieldEncoder([field])
    model = raw_model(echo(field), columns_of(encoder, lists=True), encoder)
    last = model.graph.node[-1]
    model.graph.output[0].name = last.input[0]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    del model.graph.node[-1]
    return probabilities(model, {field.column: cells})


NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=20)
@given(st.lists(NUMBERS, min_size=1, max_size=40), st.lists(st.integers(-70, 2000), min_size=1, max_size=30))
def test_criteo_buckets_of_any_number_are_the_encoders(numbers, training):
    field = CriteoField("I1", "I1", 1)
    codes = np.unique(field.parse_numbers(np.array(training, np.float64)))
    field._set_buckets([int(code) - 1 for code in codes if code])
    borders = steps_of(field)[0]
    cells = np.concatenate([numbers, training, borders, np.nextafter(borders, -np.inf)])
    finite = np.where(np.isfinite(cells), cells, np.nan)
    np.testing.assert_array_equal(encoded_by_graph(field, cells)[:, 0], field.encode(field.parse_numbers(finite)))


@settings(max_examples=60)
@given(st.lists(NUMBERS, min_size=1, max_size=40), st.lists(st.floats(-1e6, 1e6), max_size=30, unique=True))
def test_quantiles_of_any_number_are_the_encoders(numbers, borders):
    field = QuantileField("q", "q", 8)
    field.borders = np.sort(np.array(borders, np.float64))
    cells = np.concatenate([numbers, field.borders, np.nextafter(field.borders, np.inf)])
    finite = np.where(np.isfinite(cells), cells, np.nan)
    np.testing.assert_array_equal(encoded_by_graph(field, cells)[:, 0], field.encode(finite))


@settings(max_examples=60)
@given(st.lists(NUMBERS, min_size=1, max_size=40), st.booleans())
def test_values_of_any_number_are_the_encoders_and_a_word_for_missing_may_be_a_number(numbers, log):
    field = NumberField("price", "price", log, CellRules(missing_words=("-999", "old")))
    field.mean, field.std = 2.5, 0.7
    cells = np.array([*numbers, -999.0, 0.0])
    known = np.where(np.isfinite(cells) & (cells != -999), cells, np.nan)
    found = encoded_by_graph(field, cells)[:, 0]
    np.testing.assert_allclose(found, field.encode(field.parse_numbers(known)), rtol=1e-6, atol=1e-6)
    assert found[-2] == 0


CELLS = [
    "",
    "a",
    "b",
    "12",
    "12.0",
    "-0",
    "0",
    "NA",
    "null",
    "Null",
    "N/A",
    "nan",
    "never seen",
    "true",
    "TRUE",
    "1",
    "Ünïcödé",
    "x" * 99,
]


@pytest.mark.parametrize("vocabulary", [["a", "12", "0", "Ünïcödé"], ["true", "false"], ["1", "0"], []])
def test_texts_are_looked_up_as_the_encoder_does_missing_and_unseen_told_apart(vocabulary):
    field = TextField("site", "site", 1)
    field.set_vocabulary(pl.Series(vocabulary, dtype=pl.String))
    expected = field.transform(pl.Series(CELLS))
    np.testing.assert_array_equal(encoded_by_graph(field, np.array(CELLS, object))[:, 0], expected)
    assert {0, 1} <= set(expected.tolist())


@settings(max_examples=60)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "12.0", "", "NA", "never seen"]), max_size=9), min_size=1, max_size=8))
def test_lists_keep_their_last_elements_that_are_not_missing(rows):
    field = ListField("seen", "seen", 1, Notation("|"), 4, None)
    field.set_vocabulary(pl.Series(["a", "12", "b"]))
    texts = pl.DataFrame({"seen": ["|".join(row) for row in rows]})
    cells = inputs_of_texts(columns_of(FieldEncoder([field]), lists=True), texts)["seen"]
    np.testing.assert_array_equal(encoded_by_graph(field, cells), field.transform(texts["seen"]))


@settings(max_examples=60)
@given(st.lists(st.datetimes(), min_size=1, max_size=20))
def test_hours_and_weekdays_of_seconds_are_those_of_the_written_time(times):
    texts = pl.DataFrame({"when": [f"{time:%Y-%m-%d %H:%M:%S}".rjust(19, "0") for time in times]})
    for unit, buckets in (("hour", [5, 0, 23, 12]), ("weekday", [6, 0, 3])):
        field = ClockField(f"when_{unit}", "when", 1, unit, "%Y-%m-%d %H:%M:%S")
        field._set_buckets(buckets)
        cells = inputs_of_texts(columns_of(FieldEncoder([field]), lists=True), texts)["when"]
        np.testing.assert_array_equal(encoded_by_graph(field, cells)[:, 0], field.transform(texts["when"]))
    assert encoded_by_graph(field, np.array([np.nan]))[0, 0] == 1


def test_columns_may_have_any_name_and_a_calibration_moves_the_logit():
    fields = [TextField(name, name, 1) for name in ("ids", "model/", "probability")]
    for own in fields:
        own.set_vocabulary(pl.Series([f"v{number}" for number in range(8)]))
    encoder = FieldEncoder(fields)
    torch.manual_seed(0)
    model = make_model("fm", schema=encoder.schema)
    columns = columns_of(encoder, lists=False)
    feeds = {own.name: np.array(["v1", "v3", "", "new"], object) for own in fields}
    body = onnx.load_from_string(onnx_file(model))
    plain = probabilities(raw_model(body, columns, encoder), feeds)
    moved = probabilities(raw_model(body, columns, encoder, Calibration(slope=0.5, intercept=1.0)), feeds)
    np.testing.assert_allclose(np.log(moved / (1 - moved)), 0.5 * np.log(plain / (1 - plain)) + 1, rtol=1e-4)
