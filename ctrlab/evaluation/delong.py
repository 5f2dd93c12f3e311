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

Where labels have weights, (n, 2) as in `metrics`, every estimate and interval is that of the expanded table: a row of 40
impressions with 2 clicks is 2 clicks and 38 non-clicks, drawn independently. That is what counts of impressions are. A label that
is a judged probability has no such draws: its interval then says how sure as many draws would be.
"""

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctrlab.evaluation.evidence import ENOUGH_CLICKS
from ctrlab.evaluation.metrics import checked, checked_weights, is_weighted, row_log_losses, weighted_losses

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
    found = _placed(labels, scores)
    estimate = _mean(found.of_clicks, found.clicks)
    error = _standard_error(found.of_clicks, found.of_others, found, largest=0.5)
    rarer = found.rarer
    by_normal = rarer >= ENOUGH_CLICKS and error > 0
    bounds = _logit_bounds(estimate, error, level) if by_normal else _binomial_bounds(estimate, rarer, level)
    return Interval(estimate, error, *bounds, level)


def auc_difference(labels: ArrayLike, scores: ArrayLike, reference: ArrayLike, level: float = LEVEL) -> Interval:
    """AUC(scores) - AUC(reference), both (n,) of the same rows, with its interval, which lies within -1..1.

    standard_error: by DeLong; 1, the largest there can be, where one row of a class leaves it unknown.

    Raises:
        DataError: as `metrics.auc`.
    """
    ours, theirs = _placed(labels, scores), _placed(labels, reference)
    of_clicks, of_others = ours.of_clicks - theirs.of_clicks, ours.of_others - theirs.of_others
    alike = not of_clicks.any() and not of_others.any()
    error = 0.0 if alike else _standard_error(of_clicks, of_others, ours, largest=1.0)
    found = _around(_mean(of_clicks, ours.clicks), error, level, ours.rarer)
    return Interval(found.estimate, error, max(found.low, -1.0), min(found.high, 1.0), level)


def log_loss_difference(labels: ArrayLike, logits: ArrayLike, reference: ArrayLike, level: float = LEVEL) -> Interval:
    """Log loss of logits - log loss of reference, both (n,) of the same rows: a mean of paired differences, with its interval.

    Raises:
        DataError: as `metrics.log_loss`.
    """
    if is_weighted(labels):
        (ours, weights), (theirs, _) = weighted_losses(labels, logits), weighted_losses(labels, reference)
    else:
        ours, theirs = row_log_losses(labels, logits), row_log_losses(labels, reference)
        weights = np.ones(len(ours))
    differences, rows = ours - theirs, float(weights.sum())
    mean = _mean(differences, weights)
    error = float(np.sqrt(_variance_of_mean(differences, weights))) if rows > 1 else 0.0
    return _around(mean, error, level, rows)


@dataclass(frozen=True)
class _Placed:
    """Placements of rows with weights.

    of_clicks, of_others: for every row with clicks the share of non-clicks below it, for every row with non-clicks the share of
    clicks above it; ties count half. clicks, others: the weights of these.
    """

    of_clicks: NDArray[np.float64]
    of_others: NDArray[np.float64]
    clicks: NDArray[np.float64]
    others: NDArray[np.float64]

    @property
    def rarer(self) -> float:
        """Weight of the rarer class."""
        return float(min(self.clicks.sum(), self.others.sum()))


def _placed(labels: ArrayLike, scores: ArrayLike) -> _Placed:
    if not is_weighted(labels):
        clicked, scores = checked(labels, scores)
        positive, negative = scores[clicked], scores[~clicked]
        shares = _share_below(positive, negative), 1 - _share_below(negative, positive)
        return _Placed(*shares, np.ones(len(positive)), np.ones(len(negative)))
    clicks, others, scores = checked_weights(labels, scores)
    positive, negative = scores[clicks > 0], scores[others > 0]
    clicks, others = clicks[clicks > 0], others[others > 0]
    return _Placed(_weight_below(positive, negative, others), 1 - _weight_below(negative, positive, clicks), clicks, others)


def _share_below(values: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    others = np.sort(others)
    twice = np.searchsorted(others, values, side="left") + np.searchsorted(others, values, side="right")
    shares: NDArray[np.float64] = twice / (2 * len(others))
    return shares


def _weight_below(values: NDArray[Any], others: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """`_share_below` by the weights of the others."""
    order = np.argsort(others, kind="stable")
    others, below = others[order], np.append(0.0, np.cumsum(weights[order]))
    twice = below[np.searchsorted(others, values, side="left")] + below[np.searchsorted(others, values, side="right")]
    shares: NDArray[np.float64] = twice / (2 * below[-1])
    return shares


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    return float(values @ weights / weights.sum())


def _variance_of_mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Of the mean of values that occur `weights` times each: the unbiased variance by the number of values."""
    rows = weights.sum()
    return float((values - _mean(values, weights)) ** 2 @ weights / (rows - 1) / rows)


def _standard_error(of_clicks: NDArray[np.float64], of_others: NDArray[np.float64], placed: _Placed, largest: float) -> float:
    """DeLong's; `largest` where a class has one row, and never more than it."""
    if placed.rarer < 2:
        return largest
    variance = _variance_of_mean(of_clicks, placed.clicks) + _variance_of_mean(of_others, placed.others)
    return min(math.sqrt(variance), largest)


def _logit_bounds(estimate: float, error: float, level: float) -> tuple[float, float]:
    """The interval of a share, symmetric on the scale of its logit (the delta method)."""
    margin = NormalDist().inv_cdf((1 + level) / 2) * error / (estimate * (1 - estimate))
    odds = estimate / (1 - estimate)
    return odds / (odds + float(np.exp(margin))), odds / (odds + float(np.exp(-margin)))


def _binomial_bounds(estimate: float, trials: float, level: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of `trials`; the number of successes need not be whole."""
    from scipy.special import betaincinv  # imported late: most measurements need none of it

    wins, tail = estimate * trials, (1 - level) / 2
    low = float(betaincinv(wins, trials - wins + 1, tail)) if wins > 0 else 0.0
    high = float(betaincinv(wins + 1, trials - wins, 1 - tail)) if wins < trials else 1.0
    return low, high


def _around(estimate: float, error: float, level: float, rows: float) -> Interval:
    """The symmetric interval; by Student's quantile where the error was estimated from few `rows`."""
    margin = _quantile((1 + level) / 2, rows) * error if error else 0.0
    return Interval(estimate, error, estimate - margin, estimate + margin, level)


def _quantile(share: float, rows: float) -> float:
    if rows >= ENOUGH_CLICKS:
        return NormalDist().inv_cdf(share)
    from scipy.special import stdtrit

    return float(stdtrit(max(1, rows - 1), share))
