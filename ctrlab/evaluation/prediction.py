"""Predictions of a model for the rows of a split."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ctrlab.data.dataset import Split
from ctrlab.data.schema import Fields
from ctrlab.engines.choose import predictor_of
from ctrlab.engines.fast.context import ComputeDtype
from ctrlab.engines.parallel_map import num_threads, parallel_map
from ctrlab.errors import JobCancelled
from ctrlab.evaluation.metrics import Metrics, metrics_of
from ctrlab.models.base import CTRModel

EVALUATION_BATCH_SIZE = 4096

#: Smaller batches cost more in calls than a second thread saves.
_SMALLEST_BATCH = 256


def never() -> bool:
    """The default of every `should_stop`."""
    return False


def predict_logits(
    model: CTRModel,
    split: Split,
    batch_size: int = EVALUATION_BATCH_SIZE,
    *,
    compute_dtype: ComputeDtype = "float32",
    should_stop: Callable[[], bool] = never,
) -> NDArray[np.float32]:
    """The model's logits for every row of a split, float32 (n,), in the rows' order. The model is left untouched.

    On the CPU batches run in parallel, one thread each. Safe to call from any number of threads.

    Args:
        compute_dtype: "bfloat16" for linear layers that read and write 8 significant bits; logits then differ in the third digit.

    Raises:
        JobCancelled: `should_stop()` was true between two batches.
    """
    device = next(model.parameters()).device
    predictor = predictor_of(model, compute_dtype=compute_dtype)
    logits = np.empty(len(split), np.float32)
    # A small split is divided between the threads too.
    batch_size = min(batch_size, max(_SMALLEST_BATCH, -(-len(split) // num_threads())))

    def predict(start: int) -> None:
        rows = slice(start, min(start + batch_size, len(split)))
        with torch.no_grad():
            logits[rows] = predictor(to_tensors(split.fields(rows), device)).float().cpu().numpy()

    starts = _starts(len(split), batch_size, should_stop)
    for _ in parallel_map(predict, starts, threads=None if device.type == "cpu" else 1):
        pass
    return logits


def _starts(num_rows: int, batch_size: int, should_stop: Callable[[], bool]) -> Iterator[int]:
    for start in range(0, num_rows, batch_size):
        if should_stop():
            raise JobCancelled("cancelled while predicting")
        yield start


def to_tensors(fields: Fields, device: torch.device) -> Fields:
    """A batch of arrays as tensors on `device`; on the CPU they share memory where it is writable."""
    # A map of a file is read-only, which torch cannot express: those are copied.
    return Fields(*(torch.from_numpy(array if array.flags.writeable else array.copy()).to(device) for array in fields))


def evaluate_model(
    model: CTRModel, split: Split, batch_size: int = EVALUATION_BATCH_SIZE, *, should_stop: Callable[[], bool] = never
) -> Metrics:
    """AUC, log loss and calibration of a model on a split.

    Raises:
        DataError: the split has no rows, or the model predicts nan.
        JobCancelled: `should_stop()` was true between two batches.
    """
    return metrics_of(split.targets(), predict_logits(model, split, batch_size, should_stop=should_stop))
