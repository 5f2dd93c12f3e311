"""The limit that matrix products set: rows a second if a step of DeepFM's MLP were nothing but its products.

For every layer (in -> out) at the batch size: forward (B, in) x (in, out), gradient of the input (B, out) x (out, in), gradient
of the weight (out, B) x (B, in), each by the faster of MKL and oneDNN, operands laid out as each likes them best.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BATCH, WIDTHS = 4096, (624, 400, 400, 400)
_SECONDS = 0.1


def limit(dtype: torch.dtype, batch: int = BATCH, widths: tuple[int, ...] = WIDTHS) -> dict[str, float]:
    """rows_per_second, gflops: of all products in turn."""
    seconds = macs = 0.0
    for width, out in itertools.pairwise(widths):
        for rows, inner, columns in ((batch, width, out), (batch, out, width), (out, batch, width)):
            seconds += min(_median(call) for call in _ways(rows, inner, columns, dtype))
            macs += rows * inner * columns
    return {"rows_per_second": batch / seconds, "gflops": 2e-9 * macs / seconds}


def _ways(rows: int, inner: int, columns: int, dtype: torch.dtype) -> Iterator[Callable[[], Tensor]]:
    """(rows, inner) x (inner, columns), by every way there is."""
    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    turned, out = right.t().contiguous(), torch.empty(rows, columns, dtype=dtype)
    yield lambda: torch.mm(left, right, out=out)
    yield lambda: torch.mm(left, turned.t(), out=out)
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return
    onednn = torch.ops.mkldnn._linear_pointwise
    weights = [turned]
    if dtype == torch.float32:  # laid out once and for all, which a product with a weight that changes cannot have
        weights.append(torch.ops.mkldnn._reorder_linear_weight(turned, rows))
    for weight in weights:
        yield lambda weight=weight: onednn(left, weight, None, "none", [], "")  # type: ignore[misc]


def _median(call: Callable[[], Tensor]) -> float:
    for _ in range(3):
        call()
    times, end = [], time.perf_counter() + _SECONDS
    while time.perf_counter() < end or len(times) < 5:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
