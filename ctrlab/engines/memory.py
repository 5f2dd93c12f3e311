"""Freed memory kept for the next allocation.

A step frees tensors of 10 MB and allocates new ones. The C library returns such memory to the system at once, which then has to
map and clear each page again: 6,000 page faults a step of DeepFM, a tenth of its time.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: The largest block that malloc takes from the heap; set by hand it no longer adapts by itself.
_BLOCK = 32 << 20
#: How much free heap is kept inside `kept_memory`, and outside: what malloc arrives at by itself with such blocks.
_IN_USE, _USUAL = 1 << 30, 2 * _BLOCK

_lock = threading.Lock()
#: Allocator settings belong to the process: the first engine changes them, the last one resets them.
_users = 0


class Allocator(NamedTuple):
    """The two calls of glibc's malloc."""

    mallopt: Callable[[int, int], object]
    malloc_trim: Callable[[int], object]


@contextmanager
def kept_memory(allocator: Callable[[], Allocator | None] | None = None) -> Iterator[None]:
    """Inside the block freed memory stays with the process; after it all is returned. Does nothing without glibc.

    Args:
        allocator: finds the allocator, None where there is no glibc; glibc's own by default.
    """
    library = (allocator or glibc)()
    if library is None:
        yield
        return
    _count(1, lambda: (library.mallopt(_M_MMAP_THRESHOLD, _BLOCK), library.mallopt(_M_TRIM_THRESHOLD, _IN_USE)))
    try:
        yield
    finally:
        _count(-1, lambda: (library.mallopt(_M_TRIM_THRESHOLD, _USUAL), library.malloc_trim(0)))


def trim_heap(allocator: Callable[[], Allocator | None] | None = None) -> None:
    """Return free heap to the system (malloc_trim): before other work, whose threads have heaps of their own."""
    library = (allocator or glibc)()
    if library is not None:
        library.malloc_trim(0)


def _count(change: int, at_border: Callable[[], object]) -> None:
    """Count nested and parallel uses; the first and the last one change the settings."""
    global _users
    with _lock:
        _users += change
        if _users == max(change, 0):
            at_border()


@cache
def glibc() -> Allocator | None:
    """The allocator of this process where it is glibc's."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - other C libraries have a mallopt with other meanings
        return Allocator(library.mallopt, library.malloc_trim)
    except (AttributeError, OSError, TypeError):
        return None
