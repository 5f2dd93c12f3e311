"""Loops that count AUC and sum log loss and calibration; see `evaluation/counting.py`."""

import math

import numpy as np

from ctrlab.kernels.compile import compiled

BUCKETS = 1024
BLOCK_ROWS = 1 << 16


@compiled(inline="always")
def _bucket(score: float, low: float, scale: float) -> int:  # pragma: no cover - compiled
    # Shifting, scaling and cutting off are monotone in floating point too; nan (infinity times 0) goes to the first.
    place = (np.float64(score) - low) * scale
    if not place > 0.0:
        return 0
    return BUCKETS - 1 if place >= BUCKETS - 1 else int(place)


@compiled()
def count(clicked, scores, low, scale):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Non-clicks and clicks of each bucket, int64 (BUCKETS, 2)."""
    counts = np.zeros((BUCKETS, 2), np.int64)
    for i in range(len(scores)):
        counts[_bucket(scores[i], low, scale), np.int64(clicked[i])] += 1
    return counts


@compiled()
def deal(clicked, scores, low, scale, places, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Write every score to the next place of its bucket and class; `places` (BUCKETS, 2) is advanced."""
    for i in range(len(scores)):
        bucket, label = _bucket(scores[i], low, scale), np.int64(clicked[i])
        out[places[bucket, label]] = scores[i]
        places[bucket, label] += 1


@compiled()
def merged_wins(dealt, borders, below, first, last):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Twice the number of pairs won: for each click the non-clicks below it, and those not above it."""
    wins = 0
    for bucket in range(first, last):
        start, middle, stop = borders[2 * bucket], borders[2 * bucket + 1], borders[2 * bucket + 2]
        for strict in range(2):
            i, j, before = start, middle, below[bucket] - start
            while i < middle and j < stop:
                # No branch on the scores: their order is a coin toss.
                up = dealt[i] < dealt[j] if strict else dealt[i] <= dealt[j]
                wins += 0 if up else before + i
                i += 1 if up else 0
                j += 0 if up else 1
            wins += (stop - j) * (before + i)
    return wins


@compiled()
def add_losses(clicked, logits, first, last, sums):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Log loss and calibration bins of the blocks first : last, one row of `sums` each."""
    bins = (sums.shape[1] - 1) // 3
    for block in range(first, last):
        own = sums[block]
        total = 0.0
        for i in range(block * BLOCK_ROWS, min(len(logits), (block + 1) * BLOCK_ROWS)):
            x = np.float64(logits[i])
            # As in `metrics.row_log_losses`: stable at both ends.
            small = math.exp(-abs(x))
            signed = -x if clicked[i] else x
            total += max(signed, 0.0) + math.log1p(small)
            probability = (1.0 if x >= 0 else small) / (1.0 + small)
            held = min(int(probability * bins), bins - 1)
            own[1 + held] += probability
            own[1 + bins + held] += np.float64(clicked[i])
            own[1 + 2 * bins + held] += 1.0
        own[0] = total
