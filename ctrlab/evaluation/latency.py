"""How fast models answer: latency and throughput by batch size, in torch and in ONNX Runtime, on the same rows.

Models that are to be compared are timed together (`time_together`): in every round each has its turn, in another order, so that
what else the machine does meets all of them alike. `evaluation.speed_ratio` makes ratios of the rounds.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol, Self

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
#: Turns of each model at each batch size.
ROUNDS = 9

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
    rounds_ms: median of the calls of each round.
    """

    batch_size: int
    p50_ms: float
    p99_ms: float
    rows_per_second: float
    runs: int
    threads: int
    device: str = "cpu"
    rounds_ms: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**{**values, "rounds_ms": tuple(values["rounds_ms"])})


class Runner(Protocol):
    """A loaded model: `prepare` makes its inputs of a batch, which is not timed; a call runs it, up to the logits in numpy."""

    device: str

    def prepare(self, fields: Fields) -> Any: ...

    def __call__(self, inputs: Any) -> None: ...


class TorchRunner:
    """A model in torch, on its own device, without gradients, with the layers that `predict_logits` runs."""

    def __init__(self, model: CTRModel, parts: ThreadParts) -> None:
        self._device = next(model.parameters()).device
        self._predictor = predictor_of(model, parts=parts)
        self.device = self._device.type

    def prepare(self, fields: Fields) -> Any:
        """The arrays as tensors on the model's device."""
        return to_tensors(fields, self._device)

    def __call__(self, inputs: Any) -> None:
        # Back to numpy as in serving; on a GPU this also waits for the result.
        self._predictor(inputs).cpu().numpy()


class OnnxRunner:
    """A model that `export_onnx` wrote, in ONNX Runtime on the CPU.

    Raises:
        StorageError: there is no ONNX model at `path`.
    """

    device = "cpu"

    def __init__(self, path: str | Path, threads: int) -> None:
        self._session = open_onnx(path, threads=threads)
        self._names = [node.name for node in self._session.get_inputs()]

    def prepare(self, fields: Fields) -> Any:
        """The arrays that the file names as inputs."""
        return {name: getattr(fields, name) for name in self._names}

    def __call__(self, inputs: Any) -> None:
        self._session.run(None, inputs)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What is timed under one name: a torch model, an ONNX file, or both."""

    model: CTRModel | None = None
    onnx_file: Path | None = None


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
    settings: dict[str, Any] = {"threads": threads, "seconds": seconds, "should_stop": should_stop}
    return time_together({"": Contender(model=model)}, split, batch_sizes, **settings)["torch"][""]


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
    settings: dict[str, Any] = {"threads": threads, "seconds": seconds, "should_stop": should_stop}
    return time_together({"": Contender(onnx_file=Path(path))}, split, batch_sizes, **settings)["onnx"][""]


def time_together(
    contenders: Mapping[str, Contender],
    split: Split,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    *,
    threads: int | None = None,
    seconds: float = SECONDS,
    rounds: int = ROUNDS,
    should_stop: Callable[[], bool] = never,
    on_progress: Callable[[float], None] = lambda fraction: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, dict[int, Latency]]]:
    """Time several models on the same rows, interleaved: in each round all have their turn, another one first each time.

    Args:
        contenders: {name: what to time}; all of them are loaded at once.
        split, threads: as in `measure_latency`.
        seconds: spent on each model, runtime and batch size, over all rounds (at least one call a round is timed).
        on_progress: called with the share that is done.
        clock: seconds of a call; `time.thread_time` for those that one thread computed, whatever else the machine did.

    Returns:
        {"torch" or "onnx": {name: {batch size: its latency}}}, with a runtime only where a contender has it.

    Raises:
        StorageError, DataError, JobCancelled: as `measure_onnx_latency`.
    """
    found: dict[str, dict[str, dict[int, Latency]]] = {}
    with ExitStack() as stack:
        used = stack.enter_context(_torch_threads(threads))
        stack.enter_context(torch.inference_mode())
        parts = stack.enter_context(ThreadParts(used))
        runtimes = {runtime: runners for runtime, runners in _runners(contenders, parts, used).items() if runners}
        steps = len(runtimes) * len(batch_sizes)
        for size, inputs in _inputs(split, batch_sizes, should_stop):
            for runtime, runners in runtimes.items():
                prepared = {name: [runner.prepare(fields) for fields in inputs] for name, runner in runners.items()}
                for name, durations in interleaved(runners, prepared, seconds, rounds, clock).items():
                    latency = latency_of(durations, size, used, runners[name].device)
                    found.setdefault(runtime, {}).setdefault(name, {})[size] = latency
                on_progress(sum(len(own) for of in found.values() for own in of.values()) / (steps * len(runners)))
    return found


def _runners(contenders: Mapping[str, Contender], parts: ThreadParts, threads: int) -> dict[str, dict[str, Runner]]:
    return {
        "torch": {name: TorchRunner(own.model, parts) for name, own in contenders.items() if own.model is not None},
        "onnx": {name: OnnxRunner(own.onnx_file, threads) for name, own in contenders.items() if own.onnx_file is not None},
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


def interleaved(
    runners: Mapping[str, Runner], inputs: Mapping[str, list[Any]], seconds: float, rounds: int, clock: Callable[[], float]
) -> dict[str, list[list[float]]]:
    """{name: for each round, seconds of its calls}; each runner goes through its own inputs in turn."""
    turns = {name: cycle(own) for name, own in inputs.items()}
    durations: dict[str, list[list[float]]] = {name: [] for name in runners}
    each = seconds * (1 - _WARM_UP_SHARE) / rounds
    with flushed_denormals():
        for name, runner in runners.items():
            _run_for(runner, turns[name], seconds * _WARM_UP_SHARE, _WARM_UP_RUNS, clock)
        for number in range(rounds):
            for name in _in_turn(list(runners), number):
                if len(runners) > 1:
                    _run_for(runners[name], turns[name], 0.0, 1, clock)  # brings its weights back into the cache
                durations[name].append(_run_for(runners[name], turns[name], each, math.ceil(_MIN_RUNS / rounds), clock))
    return durations


def _in_turn(names: list[str], number: int) -> list[str]:
    """The order of a round: each name is first in turn, and every other round runs backwards."""
    start = number // 2 % len(names)
    order = names[start:] + names[:start]
    return order[::-1] if number % 2 else order


def latency_of(rounds: Sequence[Sequence[float]], batch_size: int, threads: int, device: str) -> Latency:
    """What the seconds of each round's calls say."""
    p50, p99 = np.percentile(np.concatenate(rounds), [50, 99])
    return Latency(
        batch_size=batch_size,
        p50_ms=float(p50) * 1e3,
        p99_ms=float(p99) * 1e3,
        rows_per_second=batch_size / float(p50),
        runs=sum(map(len, rounds)),
        threads=threads,
        device=device,
        rounds_ms=tuple(float(np.median(own)) * 1e3 for own in rounds),
    )


def _run_for(
    call: Callable[[Any], None], turns: Iterator[Any], seconds: float, at_least: int, clock: Callable[[], float]
) -> list[float]:
    """Seconds of each call, for `seconds` in all and `at_least` calls."""
    durations: list[float] = []
    collecting = gc.isenabled()
    gc.disable()  # a collection in the middle of a call is not the model's time
    try:
        end = clock() + seconds
        started = 0.0
        while started < end or len(durations) < at_least:
            batch = next(turns)
            started = clock()
            call(batch)
            durations.append(clock() - started)
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
