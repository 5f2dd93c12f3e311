"""Compiled loops over rows, split between as many threads as torch has."""

import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
Item = TypeVar("Item")

#: Under so many elements a second thread costs more than it saves.
SMALL = 1 << 14

#: By number of threads; under 0 the one for what runs beside the caller.
_pools: dict[int, ThreadPoolExecutor] = {}
# Threads do not survive a fork: the child makes its own.
os.register_at_fork(after_in_child=_pools.clear)


def in_parts(loop: Callable[[int, int], object], total: int, *, elements: int | None = None) -> None:
    """`loop(first, last)` over disjoint parts of range(total), side by side; the loop must let go of the interpreter's lock.

    Args:
        elements: what is read or written in all, to decide whether threads pay; `total` by default.
    """
    parts = torch.get_num_threads() if (total if elements is None else elements) >= SMALL else 1
    if parts == 1:
        loop(0, total)
        return
    if parts not in _pools:
        _pools[parts] = ThreadPoolExecutor(parts - 1, thread_name_prefix="ctrlab-kernels")
    borders = [total * part // parts for part in range(parts + 1)]
    others = [_pools[parts].submit(loop, first, last) for first, last in itertools.pairwise(borders[1:])]
    loop(borders[0], borders[1])
    for other in others:
        other.result()


def in_background(function: Callable[P, Item], /, *args: P.args, **kwargs: P.kwargs) -> Future[Item]:
    """`function(*args)` by a thread beside this one; its loops must let go of the interpreter's lock."""
    if 0 not in _pools:
        _pools[0] = ThreadPoolExecutor(1, thread_name_prefix="ctrlab-background")
    return _pools[0].submit(function, *args, **kwargs)


def prepared_ahead(items: Iterator[Item], ahead: int = 2) -> Generator[Item]:
    """The same items in the same order, drawn by a thread of their own, at most `ahead` before they are asked for.

    What the iterator raises is raised here. Closing this iterator ends the thread.
    """
    queue: Queue[tuple[bool, Item | BaseException | None]] = Queue(ahead)
    closed = Event()
    thread = Thread(target=_draw, args=(items, queue, closed), name="ctrlab-batches", daemon=True)
    thread.start()
    try:
        while True:
            more, item = queue.get()
            if not more:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        # The thread may wait for room: make some, so that it sees that nobody listens any more.
        while thread.is_alive():
            try:
                queue.get(timeout=0.01)
            except Empty:
                thread.join(timeout=0.01)


def with_next(items: Iterable[Item]) -> Iterator[tuple[Item, Item | None]]:
    """Every item with the one that follows it, None behind the last."""
    following = iter(items)
    current = next(following, None)
    while current is not None:
        after = next(following, None)
        yield current, after
        current = after


def _draw(items: Iterator[Item], queue: Queue[tuple[bool, Item | BaseException | None]], closed: Event) -> None:
    try:
        for item in items:
            _put(queue, (True, item), closed)
            if closed.is_set():
                return
        _put(queue, (False, None), closed)
    except BaseException as error:
        _put(queue, (False, error), closed)


def _put(queue: Queue[tuple[bool, Item | BaseException | None]], entry: tuple[bool, Item | BaseException | None],
         closed: Event) -> None:  # fmt: skip
    while not closed.is_set():
        try:
            queue.put(entry, timeout=0.1)
            return
        except Full:
            continue
