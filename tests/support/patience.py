"""Promises of speed, held against machines that do other things besides.

The promises are of a quiet machine: `CTRLAB_TEST_SLOWNESS=1` holds everything to its word. By default ten times as much is
allowed, which still tells a thing that comes late from one that never comes.
"""

import os
import time

SLOWNESS = float(os.environ.get("CTRLAB_TEST_SLOWNESS", "10"))

#: How long to wait for what will come, in seconds; waiting costs nothing when it comes early.
PATIENCE = 120.0


def promised(seconds: float) -> float:
    """The time that what is promised within `seconds` may take here."""
    return seconds * SLOWNESS


class Stopwatch:
    """Seconds that this process was at work: those in which it waited for a processor that others had are not its own."""

    def __init__(self) -> None:
        self._started = self._now()

    @property
    def seconds(self) -> float:
        """Since the start: the wall clock's, or the processor's where they are fewer."""
        return min(now - started for now, started in zip(self._now(), self._started, strict=True))

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()
