"""How sure an AUC is, and a difference of two on the same rows; log loss likewise.

AUCs by DeLong, DeLong and Clarke-Pearson (Biometrics, 1988).

An AUC is a mean over clicks of the share of non-clicks that score lower, and a mean over non-clicks of the share of clicks that
score higher. The variances of these shares give the variance of the AUC; where two models score the same rows, the variances of
the differences give that of the difference, which is far smaller than either alone. Exact, from two sorts (Sun and Xu, 2014),
instead of a loop over pairs.

The interval of one AUC is symmetric on the scale of its logit, so it never leaves 0..1 (Pepe, 2003). Below `ENOUGH_CLICKS` rows
of the rarer class, and where the variance is 0, it is that of a binomial share of so many trials (Clopper and Pearson, 1934): the
largest variance an AUC can have (Birnbaum and Klose, 1957), hence wide, but valid for a single click. That of a difference then
has Student's quantile instead of the normal one.
"""

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctrlab.evaluation.evidence import ENOUGH_CLICKS
from ctrlab.evaluation.metrics import checked, row_log_losses

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with the interval that covers the truth in `level` of all samples of rows."""

    estimate: float
    standard_error: float
    low: float
    high: float
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def auc_interval(labels: ArrayLike, scores: ArrayLike, level: float = LEVEL) -> Interval:
    """The AUC of scores (n,) with its interval, which lies within 0..1.

    standard_error: by DeLong; 0.5, the largest there can be, where one row of a class leaves it unknown.

    Raises:
        DataError: as `metrics.auc`.

    >>> found = auc_interval([1, 0, 0, 0, 0], [0.9, 0.1, 0.2, 0.3, 0.4])
    >>> found.estimate, round(found.low, 3), found.high
    (1.0, 0.025, 1.0)
    """
    of_clicks, of_others = placements(labels, scores)
    estimate = float(of_clicks.mean())
    error = _standard_error(of_clicks, of_others, largest=0.5)
    rarer = min(len(of_clicks), len(of_others))
    by_normal = rarer >= ENOUGH_CLICKS and error > 0
    bounds = _logit_bounds(estimate, error, level) if by_normal else _binomial_bounds(estimate, rarer, level)
    return Interval(estimate, error, *bounds, level)


def auc_difference(labels: ArrayLike, scores: ArrayLike, reference: ArrayLike, level: float = LEVEL) -> Interval:
    """AUC(scores) - AUC(reference), both (n,) of the same rows, with its interval, which lies within -1..1.

    standard_error: by DeLong; 1, the largest there can be, where one row of a class leaves it unknown.

    Raises:
        DataError: as `metrics.auc`.
    """
    ours, theirs = placements(labels, scores), placements(labels, reference)
    of_clicks, of_others = ours[0] - theirs[0], ours[1] - theirs[1]
    alike = not of_clicks.any() and not of_others.any()
    error = 0.0 if alike else _standard_error(of_clicks, of_others, largest=1.0)
    found = _around(float(of_clicks.mean()), error, level, min(len(of_clicks), len(of_others)))
    return Interval(found.estimate, error, max(found.low, -1.0), min(found.high, 1.0), level)


def log_loss_difference(labels: ArrayLike, logits: ArrayLike, reference: ArrayLike, level: float = LEVEL) -> Interval:
    """Log loss of logits - log loss of reference, both (n,) of the same rows: a mean of paired differences, with its interval.

    Raises:
        DataError: as `metrics.log_loss`.
    """
    differences = row_log_losses(labels, logits) - row_log_losses(labels, reference)
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    return _around(float(differences.mean()), error, level, len(differences))


def placements(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For every click the share of non-clicks below it, and for every non-click the share of clicks above it; ties count half.

    Returns:
        (clicks,) and (non-clicks,) float64, each in the rows' order; the mean of either is the AUC.

    Raises:
        DataError: as `metrics.auc`.
    """
    clicked, scores = checked(labels, scores)
    positive, negative = scores[clicked], scores[~clicked]
    return _share_below(positive, negative), 1 - _share_below(negative, positive)


def _share_below(values: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    others = np.sort(others)
    twice = np.searchsorted(others, values, side="left") + np.searchsorted(others, values, side="right")
    shares: NDArray[np.float64] = twice / (2 * len(others))
    return shares


def _standard_error(of_clicks: NDArray[np.float64], of_others: NDArray[np.float64], largest: float) -> float:
    """DeLong's; `largest` where a class has one row, and never more than it."""
    if min(len(of_clicks), len(of_others)) < 2:
        return largest
    variance = of_clicks.var(ddof=1) / len(of_clicks) + of_others.var(ddof=1) / len(of_others)
    return min(float(np.sqrt(variance)), largest)


def _logit_bounds(estimate: float, error: float, level: float) -> tuple[float, float]:
    """The interval of a share, symmetric on the scale of its logit (the delta method)."""
    margin = NormalDist().inv_cdf((1 + level) / 2) * error / (estimate * (1 - estimate))
    odds = estimate / (1 - estimate)
    return odds / (odds + float(np.exp(margin))), odds / (odds + float(np.exp(-margin)))


def _binomial_bounds(estimate: float, trials: int, level: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of `trials`; the number of successes need not be whole."""
    from scipy.special import betaincinv  # imported late: most measurements need none of it

    wins, tail = estimate * trials, (1 - level) / 2
    low = float(betaincinv(wins, trials - wins + 1, tail)) if wins > 0 else 0.0
    high = float(betaincinv(wins + 1, trials - wins, 1 - tail)) if wins < trials else 1.0
    return low, high


def _around(estimate: float, error: float, level: float, rows: int) -> Interval:
    """The symmetric interval; by Student's quantile where the error was estimated from few `rows`."""
    margin = _quantile((1 + level) / 2, rows) * error if error else 0.0
    return Interval(estimate, error, estimate - margin, estimate + margin, level)


def _quantile(share: float, rows: int) -> float:
    if rows >= ENOUGH_CLICKS:
        return NormalDist().inv_cdf(share)
    from scipy.special import stdtrit

    return float(stdtrit(max(1, rows - 1), share))
