"""Short waits of OpenMP threads, in a process whose environment was fixed before ctrlab was imported.

Threads of GNU OpenMP, which torch computes with on Linux, spin for some milliseconds after each parallel operation, in case the
next one follows at once. Compiled loops run on threads of their own and then share the processors with spinning ones: training
took up to 1.4 times as long, and beside other processes three times. OMP_WAIT_POLICY=PASSIVE avoids it, but is read once, when
torch is imported. libgomp also stops spinning, after 100 turns, while it manages more threads than there are processors; one
idle thread with a team of its own is enough for that.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Elements of an operation that torch splits between its threads.
_PARALLEL_SIZE = 1 << 18


@contextmanager
def short_waits() -> Iterator[None]:
    """Inside the block waiting OpenMP threads sleep instead of spinning; the process's environment stays as it is."""
    if "OMP_WAIT_POLICY" in os.environ or torch.get_num_threads() == 1:
        yield
        return
    started, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=_hold_team, args=(started, ended), name="ctrlab-idle-team", daemon=True)
    thread.start()
    started.wait()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _hold_team(started: threading.Event, ended: threading.Event) -> None:
    """Make this thread's own OpenMP team, which sleeps until the thread ends."""
    torch.ones(_PARALLEL_SIZE).add_(1)
    started.set()
    ended.wait()
