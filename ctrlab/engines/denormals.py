"""Denormal numbers flushed to zero for a while: they are up to 100 times slower, and neither training nor timing needs them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Uses(threading.local):
    """Open blocks of this thread, whose processor setting it is, and the setting before the first of them."""

    count = 0
    before = False


_uses = _Uses()


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush them inside the block; the caller's own setting is back after it.

    Blocks of one thread may overlap and end in any order, as those of two engines do: the last one to end restores the setting.
    """
    if not _uses.count:
        _uses.before = are_flushed()
        torch.set_flush_denormal(True)
    _uses.count += 1
    try:
        yield
    finally:
        _uses.count -= 1
        if not _uses.count:
            torch.set_flush_denormal(_uses.before)


def are_flushed() -> bool:
    """Whether this thread flushes denormal numbers; torch itself does not say."""
    denormal = torch.full((1,), 1e-310, dtype=torch.float64)
    return float(denormal + denormal) == 0.0
