"""Integer forms answer as their float forms, or there is none and the reason is said."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ctrlab.compression.fold import serving_form
from ctrlab.compression.surgery import compress_model
from ctrlab.errors import ConfigError
from ctrlab.evaluation.latency import open_onnx
from ctrlab.plans.configs import CompressionSpec
from ctrlab.serving.graph import Graph
from ctrlab.serving.integer_export import Limits, export_integers
from ctrlab.serving.onnx_export import export_onnx
from ctrlab.serving.user_once import with_user_once
from tests.support.small_models import MemoryDataset, make_model, spectra_of

#: Of the paper.
SEVEN = ("deepfm", "dcn", "autoint_plus", "fibinet", "nfm", "afn", "gdcn")
DATA = MemoryDataset()
WIDE = {"mlp_dims": (64, 48)}


def served(architecture, compressed=True):
    """A serving form whose tables are spread as trained ones are."""
    torch.manual_seed(0)
    model = make_model(architecture, **WIDE).eval()
    for name, parameter in model.named_parameters():
        if "categorical" in name:
            parameter.data.normal_(std=0.3)
    if not compressed:
        return model
    return serving_form(compress_model(model, CompressionSpec.of({"mlp.2": 24, "embedding.ad": 3}), spectra_of(model)).model)


def integers(model, path, **settings):
    return export_integers(
        model, path, DATA.split("train"), DATA.split("valid"), limits=Limits(probability=0.02, auc_loss=0.02), **settings
    )


def logits(path, split, rows=slice(None)):
    session, fields = open_onnx(path, threads=1), split.fields(rows)
    return session.run(None, {node.name: np.asarray(getattr(fields, node.name)) for node in session.get_inputs()})[0]


@pytest.mark.parametrize("architecture", SEVEN)
def test_each_architecture_of_the_paper_multiplies_integers_within_the_limits_or_says_why_not(architecture, tmp_path):
    model, path, split = served(architecture), tmp_path / "integers.onnx", DATA.split("valid")
    form = integers(model, path)
    if architecture == "afn":  # its layers read exponentials of any size
        assert "a row's probability changes by" in form.refused and not path.exists()
        return
    assert not form.refused and form.layers >= 2 and form.tables == "codes"
    assert [node.op_type for node in onnx.load(path).graph.node].count("QGemm") == form.layers
    with torch.no_grad():
        expected = model(torch_fields(split)).numpy()
    found = logits(path, split)
    changes = np.abs(1 / (1 + np.exp(-found)) - 1 / (1 + np.exp(-expected)))
    assert changes.max() == pytest.approx(form.largest_change, abs=1e-5)
    alone = np.concatenate([logits(path, split, slice(row, row + 1)) for row in range(5)])
    np.testing.assert_allclose(alone, found[:5], atol=1e-6)  # a row's score does not depend on its batch


def torch_fields(split):
    return type(split.fields(slice(0, 1)))(*(torch.from_numpy(np.asarray(part)) for part in split.fields(slice(None))))


@pytest.mark.parametrize(
    ("architecture", "limits", "reason"),
    [
        ("deepfm", Limits(probability=1e-6), "a row's probability changes by"),
        ("deepfm", Limits(probability=1.0, auc_loss=-1.0), "an AUC loss above -1 cannot be excluded"),
        ("fm", Limits(), "no linear layer that is worth multiplying"),
        ("din", Limits(), "reads lists"),
    ],
)
def test_a_form_beyond_the_limits_is_not_written(architecture, limits, reason, tmp_path):
    model = make_model(architecture, **({} if architecture == "fm" else WIDE)).eval()
    form = export_integers(model, tmp_path / "i.onnx", DATA.split("train"), DATA.split("valid"), limits=limits)
    assert reason in form.refused
    assert not list(tmp_path.iterdir())


def test_products_do_not_saturate_on_a_processor_that_adds_pairs_in_16_bits(tmp_path):
    """The greatest codes by the greatest weights, all of one sign."""
    from ctrlab.serving.integers import linear_layers, to_integers

    weight = np.ones((1, 256, 8), np.float32)[0]
    x = np.ones((16, 256), np.float32)
    torch.onnx.export(
        linear := torch.nn.Sequential(torch.nn.Linear(256, 8, bias=False)), (torch.from_numpy(x),), str(tmp_path / "l.onnx"),
        input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "batch"}}, dynamo=False,
    )  # fmt: skip
    graph = Graph.load(tmp_path / "l.onnx")
    for name, values in graph.constants.items():
        graph.constants[name] = np.ones_like(values)
    layers = linear_layers(graph, [weight.T], {"x": x})
    to_integers(graph, layers, {"x": x})
    assert linear[0].in_features == 256 and [node.op_type for node in graph.nodes].count("QGemm") == 1
    np.testing.assert_allclose(graph.run(["y"], {"x": x})["y"], 256.0, rtol=1e-3)


@pytest.mark.parametrize("architecture", ["deepfm", "autoint_plus"])
def test_the_float_file_has_no_shape_arithmetic_and_one_gather_for_each_width(architecture, tmp_path):
    model = served(architecture)
    export_onnx(model, tmp_path / "f.onnx")
    nodes = onnx.load(tmp_path / "f.onnx").graph.node
    assert not {node.op_type for node in nodes} & {"Shape", "ConstantOfShape", "Expand"}
    looked_up = [node for node in nodes if node.op_type == "Gather" and "weight" in node.input[0]]
    assert len(looked_up) == len(model.embedding.groups) + 1  # and the first-order term


@pytest.mark.parametrize("architecture", ["deepfm", "dcn", "autoint_plus"])
def test_a_graph_with_the_user_once_answers_as_the_whole_graph(architecture, tmp_path):
    model, fields = served(architecture), DATA.split("valid").fields(slice(0, 40))
    form = integers(model, tmp_path / "integers.onnx", float_file=tmp_path / "float.onnx")
    assert not form.refused
    ids, values = np.array(fields.ids), np.array(fields.values)
    ids[:, [0, 2]], values[:, 1] = ids[0, [0, 2]], values[0, 1]
    for name in ("float", "integers"):
        whole = onnx.load(tmp_path / f"{name}.onnx")
        expected = onnxruntime.InferenceSession(whole.SerializeToString()).run(None, {"ids": ids, "values": values})[0]
        for user_values, others in (([1], [0]), ([], [0, 1])):
            split = with_user_once(whole, [0, 2], user_values)
            feeds = {"user_ids": ids[:1, [0, 2]], "ids": ids[:, [1]], "values": values[:, others]}
            feeds |= {"user_values": values[:1, user_values]} if user_values else {}
            found = onnxruntime.InferenceSession(split.SerializeToString()).run(None, feeds)[0]
            np.testing.assert_allclose(found, expected, atol=1e-5)
        if architecture == "deepfm":  # of the first layer and FM; nothing is computed for every candidate again
            assert not {node.op_type for node in split.graph.node} & {"Expand", "Shape"}


def test_a_split_that_leaves_a_side_empty_is_refused(tmp_path):
    export_onnx(make_model("deepfm"), tmp_path / "f.onnx")
    for columns, said in (([], "at least one field"), ([0, 1, 2], "at least one"), ([3], "columns 0 to 2")):
        with pytest.raises(ConfigError, match=said):
            with_user_once(onnx.load(tmp_path / "f.onnx"), columns)
