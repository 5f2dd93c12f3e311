"""Threads of an engine: loops in parts, and prefetched items."""

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Self, TypeVar

from ctrlab.kernels.parts import SMALL

Item = TypeVar("Item")
_Entry = tuple[bool, "Item | BaseException | None"]


class ThreadParts:
    """Runs compiled loops in as many parts as there are threads; the loops must release the GIL. A `kernels.parts.Parts`."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="ctrlab-loops") if threads > 1 else None

    def __call__(self, loop: Callable[[int, int], object], total: int, *, elements: int | None = None) -> None:
        """`loop(first, last)` over disjoint parts of range(total); all at once where `elements`, or `total`, is small."""
        if self._pool is None or (total if elements is None else elements) < SMALL:
            loop(0, total)
            return
        borders = [total * part // self.threads for part in range(self.threads + 1)]
        others = [self._pool.submit(loop, first, last) for first, last in itertools.pairwise(borders[1:])]
        loop(borders[0], borders[1])
        for other in others:
            other.result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def prefetch(items: Iterator[Item], ahead: int = 2) -> Generator[Item]:
    """The same items in the same order, drawn by a thread of their own, up to `ahead` before they are needed.

    An exception of the iterator is raised here. Closing this iterator ends the thread.
    """
    queue: Queue[_Entry[Item]] = Queue(ahead)
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
        # The thread may be blocked on a full queue: empty it, so that the thread sees `closed`.
        while thread.is_alive():
            try:
                queue.get(timeout=0.01)
            except Empty:
                thread.join(timeout=0.01)


def lookahead(items: Iterable[Item]) -> Iterator[tuple[Item, Item | None]]:
    """Every item with the next one, None after the last.

    >>> list(lookahead("abc"))
    [('a', 'b'), ('b', 'c'), ('c', None)]
    """
    following = iter(items)
    current = next(following, None)
    while current is not None:
        after = next(following, None)
        yield current, after
        current = after


def _draw(items: Iterator[Item], queue: "Queue[_Entry[Item]]", closed: Event) -> None:
    try:
        for item in items:
            _put(queue, (True, item), closed)
            if closed.is_set():
                return
        _put(queue, (False, None), closed)
    except BaseException as error:
        _put(queue, (False, error), closed)


def _put(queue: "Queue[_Entry[Item]]", entry: "_Entry[Item]", closed: Event) -> None:
    while not closed.is_set():
        try:
            queue.put(entry, timeout=0.1)
            return
        except Full:
            continue
