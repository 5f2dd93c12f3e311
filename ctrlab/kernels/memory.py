"""Freed memory kept for the next allocation.

A step frees tensors of 10 MB and asks for new ones. The C library hands such memory back to the system at once, which then has
to map and clear each page again: 6,000 page faults a step of DeepFM, a tenth of its time.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: The largest piece that the C library takes from memory it keeps; set by hand it no longer changes by itself.
_PIECE = 32 << 20
#: How much free memory is kept while it is in use, and else: what the C library comes to by itself with such pieces.
_IN_USE, _USUAL = 1 << 30, 2 * _PIECE

_lock = threading.Lock()
_users = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside the block freed memory stays with the process; behind it all goes back. Does nothing where there is no glibc."""
    library = _glibc()
    if library is None:
        yield
        return
    mallopt, malloc_trim = library
    _count(1, lambda: (mallopt(_M_MMAP_THRESHOLD, _PIECE), mallopt(_M_TRIM_THRESHOLD, _IN_USE)))
    try:
        yield
    finally:
        _count(-1, lambda: (mallopt(_M_TRIM_THRESHOLD, _USUAL), malloc_trim(0)))


def give_back() -> None:
    """Hand back now what is kept: before work of another kind, whose threads have memory of their own."""
    library = _glibc()
    if library is not None:
        library[1](0)


def _count(change: int, at_border: Callable[[], object]) -> None:
    """Count who is inside; the first one in and the last one out change the settings."""
    global _users
    with _lock:
        _users += change
        if _users == max(change, 0):
            at_border()


@cache
def _glibc() -> tuple[Callable[[int, int], int], Callable[[int], int]] | None:
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - other libraries have a mallopt that means something else
        return library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
