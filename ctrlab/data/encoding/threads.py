"""All cores for work that lets go of the interpreter: compiled loops, numpy, polars and Arrow."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_POLL_SECONDS = 0.1


def num_threads() -> int:
    """Threads to use: `OMP_NUM_THREADS` where it is set, as for torch and numpy, else the processors this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[T], R], items: Iterable[T], on_wait: Callable[[int], None] | None = None) -> list[R]:
    """`work` of each item, in the order of the items.

    Args:
        on_wait: called several times a second with how many items are done; what it raises ends the rest before it begins.
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


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one being made in a thread of its own while the caller works on this one."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
