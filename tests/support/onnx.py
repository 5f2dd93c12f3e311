"""Models in ONNX Runtime; equal models are exported once in a test process, for an export takes 0.3 to 6 s."""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from ctrlab.data.schema import Fields
from ctrlab.evaluation.latency import open_onnx
from ctrlab.models.base import CTRModel
from ctrlab.serving.onnx_export import export_onnx
from tests.support.small_models import digest_of

_sessions: dict[str, tuple[bytes, onnxruntime.InferenceSession]] = {}


def onnx_file(model: CTRModel) -> bytes:
    """The exported model as the content of its file."""
    return _exported(model)[0]


def onnx_session(model: CTRModel) -> onnxruntime.InferenceSession:
    """The exported model on one thread."""
    return _exported(model)[1]


def _exported(model: CTRModel) -> tuple[bytes, onnxruntime.InferenceSession]:
    key = digest_of(model)
    if key not in _sessions:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(model, path)
            _sessions[key] = (path.read_bytes(), open_onnx(path, threads=1))
    return _sessions[key]


def run_onnx(model: CTRModel, fields: Fields) -> np.ndarray:
    """Logits (B,) of the exported model."""
    session = onnx_session(model)
    return session.run(None, {node.name: getattr(fields, node.name).numpy() for node in session.get_inputs()})[0]


def assert_onnx_agrees(
    model: CTRModel, fields: Fields, *, batch_sizes: tuple[int, ...] = (1, 64), atol: float = 1e-4, rtol: float = 0.0
) -> None:
    """The exported model's logits are torch's at several batch sizes, within `atol` or `rtol` of the greatest logit."""
    for rows in batch_sizes:
        part = Fields(*(values[:rows] for values in fields))
        with torch.no_grad():
            expected = model(part).numpy()
        np.testing.assert_allclose(run_onnx(model, part), expected, rtol=0, atol=max(atol, rtol * np.abs(expected).max()))
