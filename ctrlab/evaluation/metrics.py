"""How good the predictions are: AUC, log loss, calibration. Exact, linear in memory.

Plain numpy for small inputs; from `MANY_ROWS` on the compiled passes of `counting`, which give the same numbers sooner.

Labels are (n,) of 0 and 1; or (n, 2), the weights of clicks and of non-clicks of each row (soft labels, impressions): the metrics
are then those of the table in which every row is repeated, by its weights, as clicks and as non-clicks.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctrlab.errors import DataError

CALIBRATION_BINS = 20
#: From here on compiled passes win, the import of the compiler (half a second, once) included.
MANY_ROWS = 200_000


@dataclass(frozen=True)
class Metrics:
    """Accuracy of one model on one split.

    num_rows, num_clicks: sums of weights, rounded, where labels have weights.
    auc: NaN where all rows are of one class. calibration_ratio: NaN where no row is a click; `to_dict` writes NaN as None.
    calibration_ratio: mean predicted probability / click-through rate; 1 is unbiased, above 1 predicts too many clicks.
    calibration_error: expected calibration error, see `calibration`.
    """

    auc: float
    log_loss: float
    calibration_ratio: float
    calibration_error: float
    num_rows: int
    num_clicks: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {name: None if value != value else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        given: dict[str, Any] = {name: math.nan if value is None else value for name, value in values.items()}
        return cls(**given)


@dataclass(frozen=True)
class Calibration:
    """Predicted against observed click rates.

    ratio: mean prediction / click-through rate; NaN where no row is a click.
    error: mean over rows of |mean prediction - click rate| of the row's bin.
    predicted, observed: mean prediction and click rate of each bin that holds rows, float64.
    counts: rows of each of those bins, int64.
    """

    ratio: float
    error: float
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: P(score of a click > score of a non-click) + half the probability of a tie, exactly.

    Args:
        labels: (n,) of 0 and 1, or (n, 2) weights of clicks and of non-clicks.
        scores: (n,) anything that grows with the probability of a click; logits will do.

    Raises:
        DataError: lengths differ, labels of one class only or other than 0 and 1, or scores with nan.
    """
    if is_weighted(labels):
        return weighted_auc(*checked_weights(labels, scores))
    clicked, scores = checked(labels, scores)
    if _many(scores):
        from ctrlab.evaluation.counting import counted_auc

        return counted_auc(clicked, scores)
    # Two sorts of the parts cost no more than one of the whole and leave the labels out of it.
    positive, negative = np.sort(scores[clicked]), np.sort(scores[~clicked])
    below = np.searchsorted(negative, positive, side="left")
    tied = positive == negative[np.minimum(below, len(negative) - 1)]
    tied &= below < len(negative)
    ties = np.searchsorted(negative, positive[tied], side="right") - below[tied]
    wins = int(below.sum(dtype=np.int64)) + 0.5 * int(ties.sum(dtype=np.int64))
    return wins / (len(positive) * len(negative))


def log_loss(labels: ArrayLike, logits: ArrayLike) -> float:
    """Mean binary cross-entropy in nats, from logits: log(1 + e^x) - y x, stable for any finite x.

    Raises:
        DataError: as `auc`, except that one class alone is fine.
    """
    if is_weighted(labels):
        losses, weights = weighted_losses(labels, logits)
        return float(losses @ weights / weights.sum())
    clicked, x = checked(labels, logits, both_classes=False)
    if _many(x):
        from ctrlab.evaluation.counting import loss_sums

        return loss_sums(clicked, x, CALIBRATION_BINS).loss / len(x)
    return float(_losses(clicked, x).mean())


def row_log_losses(labels: ArrayLike, logits: ArrayLike) -> NDArray[np.float64]:
    """(n,) the binary cross-entropy of each row, see `log_loss`; labels (n,) of 0 and 1."""
    return _losses(*checked(labels, logits, both_classes=False))


def weighted_losses(labels: ArrayLike, logits: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(2 n,) the cross-entropy of each row as a click, then as a non-click, and (2 n,) the weights of these."""
    clicks, others, x = checked_weights(labels, logits, both_classes=False)
    clicked = np.repeat([True, False], len(x))
    return _losses(clicked, np.concatenate([x, x])), np.concatenate([clicks, others])


def _losses(clicked: NDArray[np.bool_], logits: NDArray[Any]) -> NDArray[np.float64]:
    x = logits.astype(np.float64)
    # log(1 + e^x) = max(x, 0) + log(1 + e^-|x|); minus x for a click, which turns max(x, 0) into max(-x, 0).
    signed = np.where(clicked, -x, x)
    losses: NDArray[np.float64] = np.maximum(signed, 0.0) + np.log1p(np.exp(-np.abs(x)))
    return losses


def calibration(labels: ArrayLike, probabilities: ArrayLike, bins: int = CALIBRATION_BINS) -> Calibration:
    """Calibration ratio and expected calibration error over `bins` equally wide bins of [0, 1].

    Raises:
        DataError: as `log_loss`, or a probability outside [0, 1].
    """
    clicked: NDArray[Any]
    weighted = is_weighted(labels)
    if weighted:
        clicked, others, probabilities = checked_weights(labels, probabilities, both_classes=False)
    else:
        clicked, probabilities = checked(labels, probabilities, both_classes=False)
    if probabilities.min() < 0 or probabilities.max() > 1:
        low, high = probabilities.min(), probabilities.max()
        raise DataError(f"probabilities must lie between 0 and 1, got {low:.4g} to {high:.4g}; apply the sigmoid to logits first")
    index = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    if weighted:
        counts = np.bincount(index, weights=clicked + others, minlength=bins)
        predicted = np.bincount(index, weights=probabilities * (clicked + others), minlength=bins)
    else:
        counts = np.bincount(index, minlength=bins)
        predicted = np.bincount(index, weights=probabilities, minlength=bins)
    return _calibrated(predicted, np.bincount(index, weights=clicked, minlength=bins), counts)


def _calibrated(predicted: NDArray[Any], observed: NDArray[Any], counts: NDArray[np.int64]) -> Calibration:
    """From the sums of each bin (bins,)."""
    held = counts > 0
    return Calibration(
        ratio=float(predicted.sum() / observed.sum()) if observed.sum() else math.nan,
        error=float(np.abs(predicted - observed).sum() / counts.sum()),
        predicted=predicted[held] / counts[held],
        observed=observed[held] / counts[held],
        counts=counts[held],
    )


def sigmoid(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """1 / (1 + e^-x) in float64, without overflow."""
    # tanh saturates quietly at both ends, where e^-x would overflow.
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def metrics_of(labels: ArrayLike, logits: NDArray[np.float32]) -> Metrics:
    """All metrics of logits (n,); the AUC is NaN where all rows are of one class."""
    if is_weighted(labels):
        return _weighted_metrics(labels, logits)
    if _many(logits):
        return _metrics_of_many(labels, logits)
    clicked, logits = checked(labels, logits, both_classes=False)
    calibrated, clicks = calibration(labels, sigmoid(logits)), int(np.count_nonzero(clicked))
    found = auc(labels, logits) if 0 < clicks < len(logits) else math.nan
    return Metrics(found, log_loss(labels, logits), calibrated.ratio, calibrated.error, len(logits), clicks)


def _metrics_of_many(labels: ArrayLike, logits: NDArray[np.float32]) -> Metrics:
    from ctrlab.evaluation.counting import counted_auc, loss_sums

    clicked, logits = checked(labels, logits, both_classes=False)
    sums, clicks = loss_sums(clicked, logits, CALIBRATION_BINS), int(np.count_nonzero(clicked))
    calibrated = _calibrated(sums.predicted, sums.observed, sums.counts.astype(np.int64))
    found = counted_auc(clicked, logits) if 0 < clicks < len(logits) else math.nan
    return Metrics(found, sums.loss / len(logits), calibrated.ratio, calibrated.error, len(logits), clicks)


def _weighted_metrics(labels: ArrayLike, logits: NDArray[np.float32]) -> Metrics:
    clicks, others, logits = checked_weights(labels, logits, both_classes=False)
    calibrated = calibration(labels, sigmoid(logits))
    found = weighted_auc(clicks, others, logits) if clicks.sum() > 0 and others.sum() > 0 else math.nan
    return Metrics(found, log_loss(labels, logits), calibrated.ratio, calibrated.error, *rows_and_clicks(labels))


def rows_and_clicks(labels: ArrayLike) -> tuple[int, int]:
    """Numbers of rows and of clicks; rounded sums of weights where labels have weights.

    >>> rows_and_clicks([0, 1, 1]), rows_and_clicks([[1.0, 3.0], [0.0, 2.0]])
    ((3, 2), (6, 1))
    """
    labels = np.asarray(labels)
    if is_weighted(labels):
        clicks, others = labels.sum(axis=0, dtype=np.float64)
        return round(clicks + others), round(clicks)
    return len(labels), int(np.count_nonzero(labels))


def is_weighted(labels: ArrayLike) -> bool:
    """Whether labels are (n, 2) weights of clicks and of non-clicks."""
    return np.ndim(labels) == 2


def weighted_auc(clicks: NDArray[np.float64], others: NDArray[np.float64], scores: NDArray[Any]) -> float:
    """The AUC of rows with weights: the weight of pairs in which a click scores above a non-click, ties counting half."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    clicks, others = (np.add.reduceat(weights[order], starts) for weights in (clicks, others))
    below = np.cumsum(others) - others
    return float(clicks @ (below + others / 2) / (clicks.sum() * others.sum()))


def checked_weights(
    labels: ArrayLike, scores: ArrayLike, *, both_classes: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[Any]]:
    """Weights of clicks and of non-clicks, float64 (n,) each, and scores as an array, once all are known to be usable."""
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores)
    if labels.shape[1:] != (2,) or scores.shape != labels.shape[:1]:
        raise DataError(f"weighted labels must be (n, 2) and scores (n,), got shapes {labels.shape} and {scores.shape}")
    if len(labels) == 0:
        raise DataError("there are no rows to measure; give a split that holds some")
    if not (labels >= 0).all() or not np.isfinite(labels).all():
        raise DataError("weights of clicks and non-clicks must be numbers of 0 or more; a share of clicks lies between 0 and 1")
    clicks, others = labels[:, 0], labels[:, 1]
    if clicks.sum() + others.sum() == 0 or (both_classes and 0 in (clicks.sum(), others.sum())):
        raise DataError("the rows have clicks or non-clicks only; AUC needs both")
    if np.isnan(scores).any():
        raise DataError("the predictions contain nan; the model has diverged, train it again with a lower learning rate")
    return clicks, others, scores


def _many(scores: NDArray[Any]) -> bool:
    return len(scores) >= MANY_ROWS and scores.dtype in (np.float32, np.float64)


def checked(labels: ArrayLike, scores: ArrayLike, *, both_classes: bool = True) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Labels as booleans and scores as an array, once both are known to be usable."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise DataError(f"labels and scores must be of one length, got shapes {labels.shape} and {scores.shape}")
    clicked = labels == 1
    num_clicks = int(np.count_nonzero(clicked))
    if num_clicks + int(np.count_nonzero(labels == 0)) != len(labels):
        raise DataError("labels must be 0 or 1; give the column that says whether a row was clicked")
    if len(labels) == 0:
        raise DataError("there are no rows to measure; give a split that holds some")
    if both_classes and num_clicks in (0, len(labels)):
        raise DataError(f"all {len(labels)} labels are {int(num_clicks > 0)}; AUC needs rows of both classes")
    if np.isnan(scores).any():
        raise DataError("the predictions contain nan; the model has diverged, train it again with a lower learning rate")
    return clicked, scores
