"""Roofline of DeepFM's MLP: rows a second if a training step were only its matrix products (GEMM limit).

For every layer (in -> out) at the batch size: forward (B, in) x (in, out), gradient of the input (B, out) x (out, in), gradient
of the weight (out, B) x (B, in), each by the faster of MKL and oneDNN, operands in that library's preferred layout.
"""

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BATCH, WIDTHS = 4096, (624, 400, 400, 400)
_SECONDS = 0.1


def limit(dtype: torch.dtype, batch: int = BATCH, widths: tuple[int, ...] = WIDTHS) -> dict[str, float]:
    """rows_per_second, gflops: of all products in turn; mkl_gflops, onednn_gflops: of those that can do them all."""
    seconds = {"best": 0.0, "mkl": 0.0, "onednn": 0.0}
    macs = 0
    for width, out in itertools.pairwise(widths):
        for rows, inner, columns in ((batch, width, out), (batch, out, width), (out, batch, width)):
            own: dict[str, float] = {}
            for library, call in _ways(rows, inner, columns, dtype):
                own[library] = min(own.get(library, math.inf), _median(call))
            own["best"] = min(own.values())
            seconds = {library: total + own.get(library, math.nan) for library, total in seconds.items()}
            macs += rows * inner * columns
    gflops = {f"{library}_gflops": 2e-9 * macs / total for library, total in seconds.items() if not math.isnan(total)}
    return {"rows_per_second": batch / seconds["best"], "gflops": gflops.pop("best_gflops"), **gflops}


def _ways(rows: int, inner: int, columns: int, dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Every way to compute (rows, inner) x (inner, columns), with its library. In bfloat16 `torch.mm` uses oneDNN too."""
    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    turned, out = right.t().contiguous(), torch.empty(rows, columns, dtype=dtype)
    plain = "mkl" if dtype == torch.float32 else "onednn"
    yield plain, lambda: torch.mm(left, right, out=out)
    yield plain, lambda: torch.mm(left, turned.t(), out=out)
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return
    onednn = torch.ops.mkldnn._linear_pointwise
    weights = [turned]
    if dtype == torch.float32:  # reordered once, which is impossible for a weight that changes
        weights.append(torch.ops.mkldnn._reorder_linear_weight(turned, rows))
    for weight in weights:
        yield "onednn", lambda weight=weight: onednn(left, weight, None, "none", [], "")  # type: ignore[misc]


def _median(call: Callable[[], Tensor]) -> float:
    for _ in range(3):
        call()
    times, end = [], time.perf_counter() + _SECONDS
    while time.perf_counter() < end or len(times) < 5:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
