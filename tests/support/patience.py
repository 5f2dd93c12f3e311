"""How long tests wait for a condition, and how promises of time are measured."""

import time
from collections.abc import Callable

import psutil
import pytest

#: Seconds to wait for a condition; waiting costs nothing when it comes true early.
PATIENCE = 120.0


def seconds_of(action: Callable[[], object]) -> float:
    """Wall-clock seconds that an action took."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def assert_within(limit: float, measured: Callable[[], float], attempts: int = 3) -> None:
    """Fail unless one of a few measurements, in seconds, is under the limit: others may have met another process's burst."""
    seen: list[float] = []
    while len(seen) < attempts:
        seen.append(measured())
        if seen[-1] < limit:
            return
    pytest.fail(f"promised within {limit} s, took {', '.join(f'{seconds:.2f}' for seconds in seen)} s")


def wait_for_a_quiet_machine(most_busy_percent: float = 25.0, seconds: float = 30.0) -> None:
    """Return after half a second in which other processes use few CPUs; skip the test if there is none."""
    end = time.monotonic() + seconds
    while (busy := psutil.cpu_percent(interval=0.5)) > most_busy_percent:
        if time.monotonic() > end:
            pytest.skip(f"other processes keep {busy:.0f} % of the processors busy: promises of time are of a quiet machine")
