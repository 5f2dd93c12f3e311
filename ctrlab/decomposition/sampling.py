"""How many rows are enough: what a spectrum owes to the sample it was taken from.

Directions U_k from n rows lose a little more variance than the best k directions would. No distribution is assumed: the rows
seen are two halves A and B, and the directions of A are tried on B. Their loss there exceeds that of B's own directions by the
error of A's and the flattery of B's, each of which is, to first order in 1/n, twice the error of all n rows. A quarter of the
excess is therefore the estimate for all n rows.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ctrlab.decomposition.covariance import Moments

#: The ranks looked at are those that keep these shares of the variance.
_VARIANCES = (0.9, 0.95, 0.99)
#: Batches before the first look; each later one comes after twice as many.
_FIRST_CHECK = 4
#: Losses below this share of the variance are as good as none, whatever their ratio.
_NEGLIGIBLE = 1e-6


def is_check(batches_done: int) -> bool:
    """Whether to look now: after 4, 8, 16, ... batches, so that looking costs little however long it takes."""
    return batches_done >= _FIRST_CHECK and batches_done & (batches_done - 1) == 0


def excess_error(first: Mapping[str, Moments], second: Mapping[str, Moments]) -> float:
    """The largest estimate over layers and ranks of (loss of the directions of all rows) / (loss of the best directions) - 1.

    Args:
        first, second: moments of two disjoint random halves of the rows seen, by layer.
    """
    return max((_layer_excess(first[name], second[name]) for name in first), default=0.0)


def _layer_excess(first: Moments, second: Moments) -> float:
    if not (first.n > 0 and second.n > 0):
        return float("inf")
    a, b = first.covariance.cpu(), second.covariance.cpu()
    return 0.25 * max(_excess(a, b), _excess(b, a))


def _excess(tried: Tensor, on: Tensor) -> float:
    own, directions = torch.linalg.eigvalsh(on).flip(0).clamp(min=0), torch.linalg.eigh(tried).eigenvectors.flip(1)
    total = float(own.sum())
    if total <= 0:
        return 0.0
    kept = ((on @ directions) * directions).sum(0).cumsum(0).numpy() / total
    best = own.cumsum(0).numpy() / total
    ranks = sorted({int(np.searchsorted(best, variance)) + 1 for variance in _VARIANCES})
    losses = [(1 - kept[rank - 1], 1 - best[rank - 1]) for rank in ranks if rank < len(best)]
    return max((loss / max(least, _NEGLIGIBLE) - 1 for loss, least in losses), default=0.0)
