"""How many times as fast one model is as another, from rounds in which both were timed, or why that cannot be said."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

#: A ratio whose interval is wider than this factor says nothing.
WIDEST = 1.2
#: Calls that vary more than this between the median and the 99th percentile are not of the model alone.
WILDEST = 10.0
#: Rounds below which there is no interval.
_FEWEST = 6


@dataclass(frozen=True, kw_only=True)
class SpeedRatio:
    """Throughput of a model divided by that of a reference, with its 95 % interval.

    batch_size, runtime ("torch" or "onnx"): of the timing. ratio, low, high: NaN where both were not timed together.
    reason: why there is no verdict; "" where there is one.

    >>> SpeedRatio(batch_size=256, runtime="onnx", ratio=2.0, low=1.9, high=2.1).reason
    ''
    """

    batch_size: int
    runtime: str
    ratio: float = np.nan
    low: float = np.nan
    high: float = np.nan
    reason: str = ""


def ratio_of_rounds(model: Mapping[str, Any], reference: Mapping[str, Any], *, batch_size: int, runtime: str) -> SpeedRatio:
    """The ratio of two timings of one job; each is a `Latency` as a dictionary.

    The estimate is the median of the rounds' ratios. The interval is that of the sign test for a median: it holds for any
    distribution of the times, as long as the rounds are alike.

    >>> slow = {"p50_ms": 2.0, "p99_ms": 2.2, "rounds_ms": [2.0, 2.1, 1.9, 2.0, 2.2, 2.0, 2.0, 2.1, 2.0]}
    >>> fast = {"p50_ms": 1.0, "p99_ms": 1.1, "rounds_ms": [1.0, 1.0, 1.0, 1.0, 1.1, 1.0, 1.0, 1.0, 1.0]}
    >>> found = ratio_of_rounds(fast, slow, batch_size=256, runtime="torch")
    >>> found.ratio, found.low, found.high, found.reason
    (2.0, 2.0, 2.1, '')
    """
    ratios = np.sort(np.divide(reference["rounds_ms"], model["rounds_ms"]))
    below = _rank_of_low(len(ratios))
    if len(ratios) < _FEWEST:
        low = high = np.nan
    else:
        low, high = ratios[below - 1], ratios[len(ratios) - below]
    found = SpeedRatio(batch_size=batch_size, runtime=runtime, ratio=_median(ratios), low=float(low), high=float(high))
    return SpeedRatio(**{**vars(found), "reason": _reason(found, model, reference)})


@cache
def _rank_of_low(number: int) -> int:
    """Of so many sorted values, which one is the lower end of the sign test's interval, counted from 1."""
    return int(binom.ppf(0.025, number, 0.5))


def _median(ordered: NDArray[np.float64]) -> float:
    """The median of sorted values; `np.median` costs more than all the rest."""
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)


def _reason(found: SpeedRatio, *timings: Mapping[str, Any]) -> str:
    """Why the timings say nothing; "" where they do."""
    if found.low != found.low:
        return f"fewer than {_FEWEST} rounds were timed"
    wildest = max(timing["p99_ms"] / timing["p50_ms"] for timing in timings)
    if wildest > WILDEST:
        return f"the slowest calls took {wildest:.0f} times the median, so other work disturbed the timing"
    if found.high / found.low > WIDEST:
        return f"the timing varied too much ({found.low:.2f}x to {found.high:.2f}x)"
    return ""
