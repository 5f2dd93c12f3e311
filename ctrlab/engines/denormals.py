"""Denormal numbers flushed to zero for a while: they are up to 100 times slower, and neither training nor timing needs them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush them inside the block; the caller's own setting is back after it."""
    before = are_flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def are_flushed() -> bool:
    """Whether this thread flushes denormal numbers; torch itself does not say."""
    denormal = torch.full((1,), 1e-310, dtype=torch.float64)
    return float(denormal + denormal) == 0.0
