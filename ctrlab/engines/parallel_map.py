"""The same work on many blocks, in Python threads with one torch thread each.

A batch of a CTR model is many short operations: two torch threads on each wait for one another at every one of them, two blocks
in parallel never do. What runs in the blocks must release the GIL, as torch, numba and file reads do.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int | None = None, ahead: int = 1
) -> Generator[Result, None, None]:
    """`work(item)` of every item, in the items' order, several at a time; torch has one thread for each until the end.

    At most `threads + ahead` results are held or in the making, so an endless stream takes bounded memory. `items` is drawn by
    the calling thread. What an item raises is raised in its turn; no further item is begun, and those begun are waited for.

    Args:
        threads: None for `num_threads()`; with one, everything happens in the calling thread.
    """
    threads = threads or num_threads()
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


class _OneThread:
    """Limits torch and NumPy's BLAS to one thread while any user needs it: the setting belongs to the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users, self._before, self._resources = 0, 1, ExitStack()

    def enter(self) -> None:
        """The first user changes the setting."""
        with self._lock:
            if self._users == 0:
                self._before = torch.get_num_threads()
                torch.set_num_threads(1)
                self._resources.enter_context(threadpool_limits(1, user_api="blas"))
            self._users += 1

    def leave(self) -> None:
        """The last user puts it back."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._resources.close()
                torch.set_num_threads(self._before)

    def usual(self) -> int:
        """Threads of torch outside of the limit."""
        with self._lock:
            return self._before if self._users else torch.get_num_threads()


_one_thread = _OneThread()


def num_threads() -> int:
    """Threads that `parallel_map` uses: those of torch, also while another call has limited torch to one."""
    return _one_thread.usual()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """One thread for every operation of torch and of NumPy's BLAS, in all Python threads; after it as many as before."""
    _one_thread.enter()
    try:
        yield
    finally:
        _one_thread.leave()
