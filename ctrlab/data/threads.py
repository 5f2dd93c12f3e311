"""Two cores for work that lets go of the interpreter: compiled loops, numpy sorts, polars and Arrow."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T, R = TypeVar("T"), TypeVar("R")


def num_threads() -> int:
    """Threads to use: `OMP_NUM_THREADS` where it is set, as for torch and numpy, else the processors this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`work` of each item, in the order of the items."""
    items = list(items)
    threads = min(num_threads(), len(items))
    if threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
