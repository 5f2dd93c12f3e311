"""Metrics of millions of rows in compiled passes over blocks, on all cores.

AUC needs the order of the scores only as far as it puts clicks above non-clicks. A monotone function assigns
scores to `BUCKETS`, with clicks and non-clicks apart; each bucket is sorted alone, within the cache and in parallel, and a merge
counts the pairs. Counts are integers, so the result is exact, ties included, and does not depend on the threads.
Log loss and calibration are one pass; sums are float64, one a block of `BLOCK_ROWS`, added up in the order of the blocks.

numba is imported here: `metrics` imports this module only for many rows.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.encoding.threads import map_in_threads, num_threads
from ctrlab.kernels import counting as kernel
from ctrlab.kernels.counting import BLOCK_ROWS, BUCKETS

_SAMPLE = 4096


class LossSums(NamedTuple):
    """Sums over rows: the losses, and of each bin the probabilities, clicks and rows, float64 (bins,)."""

    loss: float
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.float64]


def counted_auc(clicked: NDArray[np.bool_], scores: NDArray[Any]) -> float:
    """The AUC of scores float (n,) without nan, n > 0, with rows of both classes; see `metrics.auc`."""
    low, scale = _spread(scores)
    rows = np.linspace(0, len(scores), num_threads() + 1).astype(np.int64)
    pieces = list(zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True))
    counts: NDArray[np.int64] = np.array(
        map_in_threads(lambda piece: kernel.count(clicked[slice(*piece)], scores[slice(*piece)], low, scale), pieces)
    )
    # Places in the order bucket, class, piece: (pieces, BUCKETS, 2).
    ends = np.cumsum(counts.transpose(1, 2, 0).ravel()).reshape(BUCKETS, 2, len(pieces)).transpose(2, 0, 1)
    dealt, starts = np.empty_like(scores), ends - counts
    map_in_threads(
        lambda i: kernel.deal(clicked[slice(*pieces[i])], scores[slice(*pieces[i])], low, scale, starts[i].copy(), dealt),
        range(len(pieces)),
    )
    borders = np.append(starts[0].ravel(), len(scores))
    below = np.append(0, np.cumsum(counts[:, :, 0].sum(axis=0)))
    wins = map_in_threads(lambda span: _sorted_wins(dealt, borders, below, span), _even_spans(borders[::2]))
    num_clicks = int(np.count_nonzero(clicked))
    return sum(wins) / (2 * num_clicks * (len(scores) - num_clicks))


def loss_sums(clicked: NDArray[np.bool_], logits: NDArray[Any], bins: int) -> LossSums:
    """Cross-entropy and calibration of logits float (n,) in one pass; see `metrics.log_loss` and `metrics.calibration`."""
    sums = np.zeros((-(-len(logits) // BLOCK_ROWS), 1 + 3 * bins))
    spans = np.linspace(0, len(sums), num_threads() + 1).astype(np.int64)
    map_in_threads(
        lambda span: kernel.add_losses(clicked, logits, *span, sums), zip(spans[:-1].tolist(), spans[1:].tolist(), strict=True)
    )
    total = sums.sum(axis=0)
    return LossSums(float(total[0]), *total[1:].reshape(3, bins))


def _spread(scores: NDArray[Any]) -> tuple[float, float]:
    """The shift and the scale that spread most of the scores over the buckets; the rest goes to the outer ones."""
    sample = np.sort(scores[:: max(1, len(scores) // _SAMPLE)].astype(np.float64))
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return 0.0, 0.0
    low, high = sample[len(sample) // 200], sample[-1 - len(sample) // 200]
    with np.errstate(over="ignore"):
        width = high - low
        scale = BUCKETS / width if width > 0 else 0.0
    return float(low), float(scale) if np.isfinite(scale) else 0.0


def _even_spans(starts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Runs of buckets of about equal numbers of rows: several a thread, so that none waits long for another."""
    targets = np.linspace(0, starts[-1], 8 * num_threads() + 1)
    cuts = np.unique(np.searchsorted(starts, targets))
    return list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))


def _sorted_wins(dealt: NDArray[Any], borders: NDArray[np.int64], below: NDArray[np.int64], span: tuple[int, int]) -> int:
    for part in range(2 * span[0], 2 * span[1]):
        dealt[borders[part] : borders[part + 1]].sort()
    return int(kernel.merged_wins(dealt, borders, below, span[0], span[1]))
