"""How sure an AUC is, and a difference of two on the same rows; log loss likewise.

AUCs by DeLong, DeLong and Clarke-Pearson (Biometrics, 1988).

An AUC is a mean over clicks of the share of non-clicks that score lower, and a mean over non-clicks of the share of clicks that
score higher. The variances of these shares give the variance of the AUC; where two models score the same rows, the variances of
the differences give that of the difference, which is far smaller than either alone. Exact, from two sorts (Sun and Xu, 2014),
instead of a loop over pairs.
"""

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctrlab.errors import DataError
from ctrlab.evaluation.metrics import checked, row_log_losses

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with the interval that covers the truth in `level` of all samples of rows, by the normal approximation."""

    estimate: float
    standard_error: float
    low: float
    high: float
    level: float

    @property
    def p_value(self) -> float:
        """Two-sided, of the estimate being 0."""
        if self.standard_error == 0:
            return 1.0 if self.estimate == 0 else 0.0
        return 2 * NormalDist().cdf(-abs(self.estimate) / self.standard_error)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def auc_interval(labels: ArrayLike, scores: ArrayLike, level: float = LEVEL) -> Interval:
    """The AUC of scores (n,) with its interval.

    Raises:
        DataError: as `metrics.auc`, or fewer than two rows of a class.
    """
    of_clicks, of_others = placements(labels, scores)
    return _interval(float(of_clicks.mean()), of_clicks, of_others, level)


def auc_difference(labels: ArrayLike, scores: ArrayLike, reference: ArrayLike, level: float = LEVEL) -> Interval:
    """AUC(scores) - AUC(reference), both (n,) of the same rows, with its interval.

    Raises:
        DataError: as `auc_interval`.
    """
    ours, theirs = placements(labels, scores), placements(labels, reference)
    of_clicks, of_others = ours[0] - theirs[0], ours[1] - theirs[1]
    return _interval(float(of_clicks.mean()), of_clicks, of_others, level)


def log_loss_difference(labels: ArrayLike, logits: ArrayLike, reference: ArrayLike, level: float = LEVEL) -> Interval:
    """Log loss of logits - log loss of reference, both (n,) of the same rows: a mean of paired differences, with its interval.

    Raises:
        DataError: as `metrics.log_loss`.
    """
    differences = row_log_losses(labels, logits) - row_log_losses(labels, reference)
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return _around(float(differences.mean()), error, level)


def placements(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For every click the share of non-clicks below it, and for every non-click the share of clicks above it; ties count half.

    Returns:
        (clicks,) and (non-clicks,) float64, each in the rows' order; the mean of either is the AUC.

    Raises:
        DataError: as `metrics.auc`, or fewer than two rows of a class.
    """
    clicked, scores = checked(labels, scores)
    positive, negative = scores[clicked], scores[~clicked]
    if min(len(positive), len(negative)) < 2:
        raise DataError("an interval needs two clicks and two non-clicks at least; measure on more rows")
    return _share_below(positive, negative), 1 - _share_below(negative, positive)


def _share_below(values: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    others = np.sort(others)
    twice = np.searchsorted(others, values, side="left") + np.searchsorted(others, values, side="right")
    shares: NDArray[np.float64] = twice / (2 * len(others))
    return shares


def _interval(estimate: float, of_clicks: NDArray[np.float64], of_others: NDArray[np.float64], level: float) -> Interval:
    variance = of_clicks.var(ddof=1) / len(of_clicks) + of_others.var(ddof=1) / len(of_others)
    return _around(estimate, float(np.sqrt(variance)), level)


def _around(estimate: float, error: float, level: float) -> Interval:
    margin = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(estimate, error, estimate - margin, estimate + margin, level)
