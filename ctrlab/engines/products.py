"""Which of torch's two matrix libraries takes a product on the CPU.

torch multiplies float32 matrices by MKL, which takes a slow path on some processors where oneDNN does not. Their sums differ in
the last bit, so the choice is part of what a seed fixes: by default it follows from the shapes alone. `timed` times both
libraries on the first product of every shape; the choices are then a result, which a later run can be given to repeat.

oneDNN is reached by a private operation of torch: it is tried once, and where it fails MKL computes everything.
"""

import functools
import math
import time
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Library = Literal["mkl", "onednn"]
MatrixProducts = Literal["fixed", "timed"]

#: x (n, k) and weight (m, k) -> x weight^T (n, m).
Product = Callable[[Tensor, Tensor], Tensor]
#: Seconds that one product takes.
Timer = Callable[[Product, Tensor, Tensor], float]

#: Multiplications below which a product is MKL's: the two libraries differ by less than a call costs.
LEAST_MACS = 1 << 24
#: Multiplications of one trial at most, some tens of milliseconds.
MOST_TRIAL_MACS = 1 << 31
_TRIALS = 3


def seconds_of(product: Product, x: Tensor, weight: Tensor) -> float:
    """The shortest of a few runs after a first one, which allocates."""
    times = []
    for _ in range(_TRIALS + 1):
        started = time.perf_counter()
        product(x, weight)
        times.append(time.perf_counter() - started)
    return min(times[1:])


class Products:
    """Matrix products, each by one of the two libraries.

    Args:
        choices: of an earlier timed run, to be repeated: ("forward 624x400=onednn", ...).
        timer: measures a product; only with `timed`.
        least_macs: smaller products are MKL's.
    """

    def __init__(
        self, mode: MatrixProducts = "fixed", choices: Iterable[str] = (), *, timer: Timer = seconds_of,
        least_macs: int = LEAST_MACS,
    ) -> None:  # fmt: skip
        self._timed, self._timer, self._least_macs = mode == "timed", timer, least_macs
        self._choices = dict(choice.split("=") for choice in choices)

    @property
    def choices(self) -> tuple[str, ...]:
        """The choices that were timed or given, sorted; empty where the rule is fixed."""
        return tuple(f"{shape}={library}" for shape, library in sorted(self._choices.items()))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool) -> Tensor:
        """x (n, k) weight^T + bias, with weight (m, k), then the ReLU where asked."""

        def by_mkl(x: Tensor, weight: Tensor) -> Tensor:
            out = functional.linear(x, weight, bias)
            return out.relu_() if relu else out

        by_onednn = functools.partial(_onednn, bias=bias, post="relu" if relu else "none")
        return self._by_library("forward", x, weight, by_mkl, by_onednn, 0)

    def product(self, kind: str, x: Tensor, weight: Tensor, *, batch: int = 0) -> Tensor:
        """x (n, k) and weight (m, k), either possibly a transposed view -> x weight^T (n, m).

        Args:
            kind: names products of one memory layout among the choices.
            batch: which of n, k and m is the number of the batch's rows.
        """
        return self._by_library(kind, x, weight, _mkl, _onednn, batch)

    def _by_library(self, kind: str, x: Tensor, weight: Tensor, by_mkl: Product, by_onednn: Product, batch: int) -> Tensor:
        sizes = [*x.shape, weight.shape[0]]
        if math.prod(sizes) < self._least_macs or not (is_dense(x) and is_dense(weight) and has_onednn(x.dtype)):
            return by_mkl(x, weight)
        # The rows of the batch are left out: a resumed fit must know the choice for a last, shorter batch too.
        shape = f"{kind} " + "x".join(str(size) for axis, size in enumerate(sizes) if axis != batch)
        if x.dtype != torch.float32:
            shape += " bfloat16"
        library = self._choices.get(shape) or _by_rule(x.dtype, batch)
        if self._timed and shape not in self._choices:
            some = _some_rows(x, weight, batch)
            library = "onednn" if self._timer(by_onednn, *some) < self._timer(by_mkl, *some) else "mkl"
            self._choices[shape] = library
        return by_onednn(x, weight) if library == "onednn" else by_mkl(x, weight)


def _by_rule(dtype: torch.dtype, batch: int) -> Library:
    """The library of a product, where nothing is timed.

    Summed over the rows of a batch, as the gradient of a weight is, float32 products took oneDNN 1.1 to 1.3 times MKL's time with
    weights of 400 x 400 and 624 x 400, and 2 to 3 times with 64 x 624 and 16 x 400. The other products took it 0.7 to 1.1
    times MKL's (one thread, 4,096 rows, AMD Zen 4).
    """
    return "mkl" if batch == 1 and dtype == torch.float32 else "onednn"


def is_dense(matrix: Tensor) -> bool:
    """Whether it is no slice of a wider one: such a product took oneDNN, which has no fast code for it, 500 times as long."""
    return matrix.is_contiguous() or matrix.t().is_contiguous()


def _mkl(x: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(x, weight.t())


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None, post: str = "none") -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, post, [], "")
    return out


def _some_rows(x: Tensor, weight: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Operands of a trial, with so few rows of the batch that a product of very wide layers does not take seconds."""
    sizes = [*x.shape, weight.shape[0]]
    rows = min(sizes[batch], max(64, MOST_TRIAL_MACS * sizes[batch] // math.prod(sizes)))
    if batch == 1:
        return _first(x, 1, rows), _first(weight, 1, rows)
    return (_first(x, 0, rows), weight) if batch == 0 else (x, _first(weight, 0, rows))


def _first(matrix: Tensor, axis: int, count: int) -> Tensor:
    """The first rows or columns, in the memory layout of the whole."""
    some = matrix.narrow(axis, 0, count)
    if is_dense(some):
        return some
    return some.contiguous() if matrix.is_contiguous() else some.t().contiguous().t()


@functools.cache
def has_onednn(dtype: torch.dtype = torch.float32) -> bool:
    """Whether oneDNN can be reached and computes correctly in `dtype`, transposed views included.

    In bfloat16 it refuses on processors without instructions for it (AVX2 alone, for instance).
    """
    # No random numbers: those of a training in progress must not depend on whether this was called before.
    x, weight, bias = (torch.linspace(-1, 1, size).to(dtype) for size in (15, 12, 4))
    x, weight = x.view(5, 3), weight.view(4, 3)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    with torch.no_grad():
        expected = functional.linear(x, weight, bias)
        try:
            forward, backward = _onednn(x, weight, bias, "relu"), _onednn(x.t(), expected.t())
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
        found = torch.allclose(forward, expected.relu(), atol=tolerance)
        return found and torch.allclose(backward, x.t() @ expected, atol=tolerance)
