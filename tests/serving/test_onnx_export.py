import sys
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from ctrlab.compression.fold import fold
from ctrlab.compression.surgery import compress_model
from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.errors import StorageError
from ctrlab.evaluation.latency import open_onnx
from ctrlab.plans.configs import CompressionSpec, RankPlan
from ctrlab.serving.onnx_export import OPSET, export_onnx
from tests.support.small_models import SCHEMA, make_model, random_fields, spectra_of


def run(path, fields):
    session = open_onnx(path, threads=1)
    feeds = {node.name: getattr(fields, node.name).numpy() for node in session.get_inputs()}
    return session.run(["logits"], feeds)[0]


def assert_agrees(model, path, schema=SCHEMA):
    export_onnx(model, path)
    for batch_size in (1, 7, 256):
        fields = random_fields(batch_size, seed=batch_size, schema=schema)
        with torch.no_grad():
            np.testing.assert_allclose(run(path, fields), model(fields).numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"batch_norm": True, "dropout": 0.3}])
@pytest.mark.parametrize("architecture", ["deepfm", "dcn"])
def test_onnx_agrees_with_torch_at_any_batch_size(architecture, settings, tmp_path):
    assert_agrees(make_model(architecture, **settings), tmp_path / "model.onnx")


@pytest.mark.parametrize(("architecture", "bottleneck"), [("deepfm", "none"), ("dcn", "relu"), ("deepfm", "prelu")])
def test_compressed_and_folded_models_agree_too(architecture, bottleneck, tmp_path):
    model = make_model(architecture)
    plan = RankPlan.of({"mlp.2": 6, "embedding.site": 2, "embedding.ad": 3})
    compressed = compress_model(model, CompressionSpec(plan=plan, bottleneck=bottleneck), spectra_of(model)).model.eval()
    assert_agrees(compressed, tmp_path / "explicit.onnx")
    assert_agrees(fold(compressed), tmp_path / "folded.onnx")


def test_a_schema_without_numeric_fields_has_no_values_input(tmp_path):
    schema = FeatureSchema(field_names=("a", "b"), field_dims=(5, 9), fingerprint="ids only")
    assert_agrees(make_model("deepfm", schema=schema), tmp_path / "model.onnx", schema)
    assert [node.name for node in open_onnx(tmp_path / "model.onnx").get_inputs()] == ["ids"]


def test_inputs_and_output_have_the_stated_names_types_and_a_free_batch(tmp_path):
    export_onnx(make_model("dcn"), tmp_path / "model.onnx")
    session = open_onnx(tmp_path / "model.onnx")
    ids, values = session.get_inputs()
    assert (ids.name, ids.type, ids.shape) == ("ids", "tensor(int32)", ["batch", 3])
    assert (values.name, values.type, values.shape) == ("values", "tensor(float)", ["batch", 2])
    assert [(node.name, node.shape) for node in session.get_outputs()] == [("logits", ["batch"])]
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == OPSET


def test_export_keeps_the_console_and_the_folder_clean_and_the_mode_as_it_was(tmp_path, capfd):
    model = make_model("deepfm").train()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_onnx(model, tmp_path / "model.onnx")
    assert {warning.category for warning in caught} == {DeprecationWarning}  # which Python shows to developers alone
    sys.stdout.flush()
    assert capfd.readouterr() == ("", "")
    assert model.training
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        export_onnx(make_model("deepfm"), tmp_path / "file" / "model.onnx")


class Positional(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, values, lists):
        return self.model(Fields(ids, values, lists))


def test_torch_export_still_refuses_din_so_that_the_exporter_that_replaces_ours_cannot_be_used():
    """Once this fails, try `dynamo=True` again: see the docstring of `ctrlab.serving.onnx_export`."""
    batch = {0: torch.export.Dim("batch", min=1)}
    with pytest.raises(GuardOnDataDependentSymNode):
        torch.export.export(Positional(make_model("din")), tuple(random_fields(2)), dynamic_shapes=(batch,) * 3)
