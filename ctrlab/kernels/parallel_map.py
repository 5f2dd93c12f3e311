"""The same work on many blocks, on Python threads of one torch thread each.

A batch of a CTR model is many short operations: two torch threads on each wait for one another at every one of them, two blocks
side by side never do. Whatever runs in the blocks must let go of Python's lock, as torch, numba and reading do.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int | None = None, ahead: int = 1
) -> Generator[Result, None, None]:
    """`work(item)` of every item, in the items' order, several at a time; torch has one thread for each until the end.

    At most `threads + ahead` results are held or in the making, so an endless stream takes bounded memory. `items` is drawn by
    the calling thread. What an item raises is raised in its turn; no further item is begun, and those begun are waited for.

    Args:
        threads: None for as many as torch uses now; with one, everything happens in the calling thread.
    """
    threads = threads or torch.get_num_threads()
    if threads == 1:
        with one_torch_thread():
            yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with one_torch_thread(), ThreadPoolExecutor(threads, thread_name_prefix="ctrlab-block") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= threads + ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """One thread for every operation of torch and of NumPy's BLAS, in all Python threads; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
