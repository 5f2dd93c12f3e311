"""Requests that wait at the same time are scored by one call; nothing waits for others to come."""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.errors import CtrlabError, DataError
from ctrlab.serving.bundle.columns import Feeds, joined
from ctrlab.serving.bundle.read import Bundle

Cells = dict[str, list[Any]]


class TooManyRequests(CtrlabError):
    """So many requests wait that another would only wait longer."""


@dataclass(frozen=True)
class _Waiting:
    """A request: its cells, its rows, what answers it, and where its scores go."""

    bundle: Bundle
    cells: Cells
    rows: int
    scores: "asyncio.Future[NDArray[np.float32]]"


class Batcher:
    """Scores requests in threads, several together where they wait.

    Args:
        threads: calls at once.
        max_rows: rows of one call, but a larger request is a call of its own.
        max_waiting: requests that wait at most.
    """

    def __init__(self, threads: int, max_rows: int, max_waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._free, self._max_rows, self._max_waiting = threads, max_rows, max_waiting
        self._waiting: deque[_Waiting] = deque()

    async def score(self, bundle: Bundle, cells: Cells, rows: int) -> NDArray[np.float32]:
        """The probabilities of a request's rows.

        Raises:
            TooManyRequests: the queue is full. DataError: a cell is none of its column.
        """
        if len(self._waiting) >= self._max_waiting:
            raise TooManyRequests(f"{self._max_waiting} requests wait already; try again in a moment")
        request = _Waiting(bundle, cells, rows, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._start()
        return await request.scores

    def close(self) -> None:
        """Wait for the calls that run, and end the threads."""
        self._pool.shutdown(wait=True)

    def _start(self) -> None:
        """Give waiting requests to free threads."""
        while self._free and self._waiting:
            batch, rows = [self._waiting.popleft()], 0
            rows = batch[0].rows
            while self._waiting and self._waiting[0].bundle is batch[0].bundle and rows + self._waiting[0].rows <= self._max_rows:
                batch.append(self._waiting.popleft())
                rows += batch[-1].rows
            self._free -= 1
            loop = asyncio.get_running_loop()
            done = loop.run_in_executor(self._pool, _scored, [(one.bundle, one.cells) for one in batch])
            done.add_done_callback(partial(self._finished, batch))

    def _finished(self, batch: list[_Waiting], done: "asyncio.Future[list[NDArray[np.float32] | BaseException]]") -> None:
        self._free += 1
        error = done.exception()
        results = [error] * len(batch) if error is not None else done.result()
        for request, result in zip(batch, results, strict=True):
            if request.scores.cancelled():  # its client has gone
                continue
            if isinstance(result, BaseException):
                request.scores.set_exception(result)
            else:
                request.scores.set_result(result)
        self._start()


def _scored(requests: list[tuple[Bundle, Cells]]) -> list[NDArray[np.float32] | BaseException]:
    """The scores of each request, or its own fault, which is not that of the others."""
    results: list[NDArray[np.float32] | BaseException] = []
    inputs: list[tuple[int, Feeds]] = []
    for place, (bundle, cells) in enumerate(requests):
        try:
            inputs.append((place, bundle.inputs(cells)))
            results.append(np.empty(0, np.float32))
        except DataError as error:
            results.append(error)
    if inputs:
        scores = requests[0][0].predict_inputs(joined([feeds for _, feeds in inputs]))
        sizes = [len(next(iter(feeds.values()))) for _, feeds in inputs]
        for (place, _), own in zip(inputs, np.split(scores, np.cumsum(sizes)[:-1]), strict=True):
            results[place] = own
    return results
