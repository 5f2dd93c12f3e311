"""Thread-parallel map for work that releases the GIL: compiled loops, numpy, polars and Arrow."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_POLL_SECONDS = 0.1


def num_threads() -> int:
    """Number of threads: `OMP_NUM_THREADS` if it is set, as for torch and numpy, else the CPUs this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(work: Callable[[T], R], items: Iterable[T], on_wait: Callable[[int], None] | None = None) -> list[R]:
    """`[work(item) for item in items]`, computed in threads.

    Args:
        on_wait: called several times a second with the number of finished items; if it raises, items not yet begun are dropped.

    >>> map_in_threads(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    items = list(items)
    if on_wait is None and min(num_threads(), len(items)) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(num_threads()) as pool:
        futures = [pool.submit(work, item) for item in items]
        pending = set(futures)
        try:
            while pending:
                ended, pending = wait(pending, _POLL_SECONDS if on_wait else None, FIRST_COMPLETED)
                for future in ended:
                    future.result()
                if on_wait is not None:
                    on_wait(len(futures) - len(pending))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]
