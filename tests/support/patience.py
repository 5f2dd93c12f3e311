"""How long tests wait for what will come, and how promises of time are held to their word."""

import time
from collections.abc import Callable

import psutil
import pytest

#: How long to wait for what will come, in seconds; waiting costs nothing when it comes early.
PATIENCE = 120.0


def seconds_of(action: Callable[[], object]) -> float:
    """Wall-clock seconds that an action took."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def assert_within(limit: float, measured: Callable[[], float], attempts: int = 3) -> None:
    """One of a few measurements must be under the limit, in seconds: the other ones may have met another process's burst."""
    seen: list[float] = []
    while len(seen) < attempts:
        seen.append(measured())
        if seen[-1] < limit:
            return
    pytest.fail(f"promised within {limit} s, took {', '.join(f'{seconds:.2f}' for seconds in seen)} s")


def wait_for_a_quiet_machine(most_busy_percent: float = 25.0, seconds: float = 30.0) -> None:
    """Return once other processes leave the processors alone for half a second; skip the test where they do not."""
    end = time.monotonic() + seconds
    while (busy := psutil.cpu_percent(interval=0.5)) > most_busy_percent:
        if time.monotonic() > end:
            pytest.skip(f"other processes keep {busy:.0f} % of the processors busy: promises of time are of a quiet machine")
