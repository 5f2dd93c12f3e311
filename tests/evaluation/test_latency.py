import numpy as np
import onnxruntime
import pytest
import torch

from ctrlab.data.dataset import Split
from ctrlab.errors import DataError, JobCancelled, StorageError
from ctrlab.evaluation.latency import Latency, measure_latency, measure_onnx_latency, open_onnx
from ctrlab.serving.onnx_export import export_onnx
from tests.support.small_models import MemoryDataset, make_model


@pytest.fixture(scope="module")
def split():
    return MemoryDataset().split("valid")


def test_both_runtimes_are_measured_at_every_batch_size(split, tmp_path):
    model = make_model("deepfm")
    export_onnx(model, tmp_path / "model.onnx")
    sizes = (1, 256, 1000)  # the split has 400 rows: the last size repeats some
    for found in (
        measure_latency(model, split, sizes, threads=1, seconds=0.05),
        measure_onnx_latency(tmp_path / "model.onnx", split, sizes, threads=1, seconds=0.05),
    ):
        assert tuple(found) == sizes
        for size, latency in found.items():
            assert 0 < latency.p50_ms <= latency.p99_ms
            assert latency.rows_per_second == pytest.approx(size / latency.p50_ms * 1e3)
            assert (latency.batch_size, latency.threads, latency.device) == (size, 1, "cpu")
            assert latency.runs >= 5
            assert Latency.from_dict(latency.to_dict()) == latency


def test_the_model_is_called_on_the_rows_of_the_split_in_inference_mode(split):
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, fields):
            seen.append((fields, torch.is_inference_mode_enabled(), self.training))
            return fields.values.sum(dim=1)

    measure_latency(Spy().train(), split, (7,), seconds=0.02)
    fields, inference, training = seen[0]
    assert inference
    assert not training
    np.testing.assert_array_equal(fields.ids.numpy(), split.ids[:7])
    np.testing.assert_array_equal(seen[1][0].ids.numpy(), split.ids[7:14])


def test_mode_and_threads_are_put_back(split):
    before, model = torch.get_num_threads(), make_model("deepfm").train()
    measure_latency(model, split, (1,), threads=before + 1, seconds=0.01)
    assert torch.get_num_threads() == before
    assert model.training


def test_an_empty_split_a_stop_and_a_missing_file_are_said(split, tmp_path):
    with pytest.raises(DataError, match="no rows to time"):
        measure_latency(make_model("deepfm"), Split("test", split.ids[:0], split.values[:0], split.labels[:0]))
    with pytest.raises(JobCancelled):
        measure_latency(make_model("deepfm"), split, should_stop=lambda: True)
    with pytest.raises(StorageError, match="export the model again"):
        measure_onnx_latency(tmp_path / "nothing.onnx", split)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(StorageError, match="cannot be opened as an ONNX model"):
        open_onnx(tmp_path / "text.onnx")


def test_an_onnx_session_takes_the_threads_it_is_given(tmp_path):
    export_onnx(make_model("dcn"), tmp_path / "model.onnx")
    session = open_onnx(tmp_path / "model.onnx", threads=1)
    assert isinstance(session, onnxruntime.InferenceSession)
    assert session.get_session_options().intra_op_num_threads == 1
