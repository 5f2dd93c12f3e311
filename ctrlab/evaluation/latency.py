"""How fast a model answers: latency and throughput by batch size, in torch and in ONNX Runtime, on the same rows."""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
import torch

from ctrlab.data.dataset import Split
from ctrlab.data.schema import Fields
from ctrlab.engines.choose import predictor_of
from ctrlab.engines.denormals import flushed_denormals
from ctrlab.engines.threads import ThreadParts
from ctrlab.errors import DataError, JobCancelled, StorageError
from ctrlab.evaluation.prediction import never, to_tensors
from ctrlab.models.base import CTRModel

BATCH_SIZES = (1, 256, 4096)
SECONDS = 0.5

#: Different batches a timing goes through in turn, so that one row's embeddings do not simply stay in the cache.
_NUM_INPUTS = 16
_WARM_UP_RUNS = 3
_WARM_UP_SHARE = 0.2
_MIN_RUNS = 5


@dataclass(frozen=True)
class Latency:
    """Time of one call, input arrays in and logits out, over `runs` calls one after the other.

    p50_ms, p99_ms: median and 99th percentile. rows_per_second: batch size / median.
    threads: what the runtime was allowed. device: "cpu" or "cuda".
    """

    batch_size: int
    p50_ms: float
    p99_ms: float
    rows_per_second: float
    runs: int
    threads: int
    device: str = "cpu"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**values)


def measure_latency(
    model: CTRModel,
    split: Split,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    *,
    threads: int | None = None,
    seconds: float = SECONDS,
    should_stop: Callable[[], bool] = never,
) -> dict[int, Latency]:
    """Time torch's forward pass, without gradients, on the device the model is on; with the layers that `predict_logits` runs.

    Args:
        split: where the rows come from; repeated where it holds fewer than a batch.
        threads: None for as many as torch uses now.
        seconds: time spent on each batch size, warm-up included (at least 5 calls are timed).

    Returns:
        {batch size: its latency}. The model is left untouched; torch's threads are put back.

    Raises:
        DataError: the split has no rows.
        JobCancelled: `should_stop()` was true between two batch sizes.
    """
    device = next(model.parameters()).device
    with torch.inference_mode(), _torch_threads(threads) as used, ThreadParts(used) as parts:
        predictor = predictor_of(model, parts=parts)

        def call(fields: Fields) -> None:
            # Back to numpy as in serving; on a GPU this also waits for the result.
            predictor(fields).cpu().numpy()

        return {
            size: _time(call, [to_tensors(fields, device) for fields in inputs], size, seconds, used, device.type)
            for size, inputs in _inputs(split, batch_sizes, should_stop)
        }


def measure_onnx_latency(
    path: str | Path,
    split: Split,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    *,
    threads: int | None = None,
    seconds: float = SECONDS,
    should_stop: Callable[[], bool] = never,
) -> dict[int, Latency]:
    """Time a model that `export_onnx` wrote, in ONNX Runtime on the CPU, on the rows `measure_latency` would take.

    Raises:
        StorageError: there is no ONNX model at `path`.
        DataError, JobCancelled: as `measure_latency`.
    """
    used = threads or torch.get_num_threads()
    session = open_onnx(path, threads=used)
    names = [node.name for node in session.get_inputs()]

    def call(feeds: dict[str, Any]) -> None:
        session.run(None, feeds)

    return {
        size: _time(call, [{name: getattr(fields, name) for name in names} for fields in inputs], size, seconds, used, "cpu")
        for size, inputs in _inputs(split, batch_sizes, should_stop)
    }


def open_onnx(path: str | Path, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A session on the CPU; `StorageError` where the file is missing or no ONNX model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: all cores
    options.log_severity_level = 3
    # Weights in integers are brought back once, not at every call: what they save is the file.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has an exception class for each status, with no base of their own
        reason = str(error).splitlines()[0]
        raise StorageError(f"{path} cannot be opened as an ONNX model ({reason}); export the model again") from None


def _inputs(split: Split, batch_sizes: Sequence[int], should_stop: Callable[[], bool]) -> Iterator[tuple[int, list[Fields]]]:
    """The batches each size is timed on: always the same rows of the same split."""
    if len(split) == 0:
        raise DataError(f"the {split.name} split has no rows to time a model on; choose another")
    for size in batch_sizes:
        if should_stop():
            raise JobCancelled("cancelled while measuring latency")
        count = min(_NUM_INPUTS, math.ceil(len(split) / size))
        rows = np.arange(count * size).reshape(count, size) % len(split)
        yield size, [split.fields(taken) for taken in rows]


def _time(call: Callable[[Any], None], inputs: list[Any], batch_size: int, seconds: float, threads: int, device: str) -> Latency:
    turns = cycle(inputs)
    with flushed_denormals():
        _run_for(call, turns, seconds * _WARM_UP_SHARE, _WARM_UP_RUNS)
        durations = _run_for(call, turns, seconds * (1 - _WARM_UP_SHARE), _MIN_RUNS)
    p50, p99 = np.percentile(durations, [50, 99])
    return Latency(
        batch_size=batch_size,
        p50_ms=float(p50) * 1e3,
        p99_ms=float(p99) * 1e3,
        rows_per_second=batch_size / float(p50),
        runs=len(durations),
        threads=threads,
        device=device,
    )


def _run_for(call: Callable[[Any], None], turns: Iterator[Any], seconds: float, at_least: int) -> list[float]:
    """Seconds of each call, for `seconds` in all and `at_least` calls."""
    durations: list[float] = []
    collecting = gc.isenabled()
    gc.disable()  # a collection in the middle of a call is not the model's time
    try:
        end = time.perf_counter() + seconds
        started = 0.0
        while started < end or len(durations) < at_least:
            batch = next(turns)
            started = time.perf_counter()
            call(batch)
            durations.append(time.perf_counter() - started)
    finally:
        if collecting:
            gc.enable()
    return durations


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[int]:
    """Torch with this many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield threads or before
    finally:
        torch.set_num_threads(before)
