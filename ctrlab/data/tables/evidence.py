"""What the rows say about one column and the label: out-of-fold predictions from the column alone.

A column is read in two ways: as ids (the click rate of each value) and as a number (log odds that are a parabola of the number's
logarithm: frequent ids of any size do not fit one). Rates come from one half of the rows and predict the other, so that a
value of its own for each row predicts nothing.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

#: Rows that are used, evenly spread over the inspected ones.
MAX_ROWS = 50_000
#: Fewer clicks or non-clicks than this say nothing.
MIN_CLASS = 20
_RANGES = 8
#: Groups of rows with about equal numbers, to which the parabola is fitted.
_GROUPS = 64
#: Rows of the mean click rate that each rate is mixed with.
_PRIOR_ROWS = 20.0


@dataclass(frozen=True)
class Evidence:
    """How well each of two readings of a column predicts the label, out of fold.

    auc_ids, auc_number: AUC of the predictions. gain_ids, gain_number: nats a row gained over the mean click rate.
    z_number: gain of the number over its standard error. z_ids: gain of the ids over the number's, over its standard error.
    """

    auc_ids: float
    auc_number: float
    gain_ids: float
    gain_number: float
    z_number: float
    z_ids: float

    @property
    def are_ids(self) -> bool:
        """Whether the order of the numbers has less than half of what the values say."""
        return self.z_ids > 3 and self.gain_number < 0.5 * self.gain_ids

    @property
    def is_quantity(self) -> bool:
        """Whether the order of the numbers has most of what the values say."""
        return self.z_number > 3 and self.gain_number >= 0.5 * self.gain_ids


@dataclass(frozen=True)
class LabelSample:
    """Rows with a label.

    rows: their places among the inspected rows. clicks: bool, of these rows. first: bool, the half that predicts the other.
    """

    rows: NDArray[np.intp]
    clicks: NDArray[np.bool_]
    first: NDArray[np.bool_]

    def auc(self, predicted: NDArray[np.float64]) -> float:
        """Area under the ROC curve, ties counting half."""
        positives = int(self.clicks.sum())
        ranks = float(pl.Series(predicted).rank().to_numpy()[self.clicks.astype(np.bool_)].sum())
        return float((ranks - positives * (positives + 1) / 2) / (positives * (len(predicted) - positives)))

    def predicted(self, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Out-of-fold click rates by code, int64 (n,) from 0 on."""
        size = int(codes.max(initial=0)) + 1
        result = np.empty(len(codes))
        for half in (self.first, ~self.first):
            rate = float(self.clicks[half].mean())
            rows = np.bincount(codes[half], minlength=size)
            clicks = np.bincount(codes[half], weights=self.clicks[half], minlength=size)
            result[~half] = ((clicks + _PRIOR_ROWS * rate) / (rows + _PRIOR_ROWS))[codes[~half]]
        return result

    def predicted_by_curve(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Out-of-fold click rates whose log odds are a parabola of sign(x) log(1 + |x|), for numbers float64 (n,) without NaN."""
        scale = np.sign(numbers) * np.log1p(np.abs(numbers))
        scale = (scale - scale.mean()) / (scale.std() or 1.0)
        groups = np.searchsorted(np.unique(np.quantile(scale, np.arange(1, _GROUPS) / _GROUPS)), scale, side="left")
        features = np.stack([np.ones_like(scale), scale, scale**2], axis=1)
        result = np.empty(len(numbers))
        for half in (self.first, ~self.first):
            curve = _fitted(features[half], self.clicks[half], groups[half])
            result[~half] = _sigmoid(features[~half] @ curve)
        return result

    def only(self, kept: NDArray[np.bool_]) -> "LabelSample | None":
        """A part of the rows; None if it has too few clicks or non-clicks."""
        return _enough(LabelSample(self.rows[kept], self.clicks[kept], self.first[kept]))


def label_sample(clicks: NDArray[np.float64]) -> LabelSample | None:
    """The rows for `evidence_of`; None if they have too few clicks or non-clicks.

    Args:
        clicks: float64 (n,), 1 or 0 for each inspected row, NaN without a label.
    """
    rows = np.flatnonzero(~np.isnan(clicks))
    rows = rows[:: max(1, -(-len(rows) // MAX_ROWS))]
    first = np.random.default_rng(0).random(len(rows)) < 0.5
    return _enough(LabelSample(rows, clicks[rows] == 1, first))


def evidence_of(texts: pl.Series, numbers: NDArray[np.float64], sample: LabelSample) -> Evidence | None:
    """Both readings of a column of numbers, over the rows that have one; None if those are too few.

    Args:
        texts: the cells of all inspected rows. numbers: float64 (n,), NaN where missing.
    """
    kept = ~np.isnan(numbers[sample.rows])
    part = sample.only(kept)
    if part is None:
        return None
    by_value = part.predicted(codes_of(texts.gather(part.rows)))
    by_curve = part.predicted_by_curve(numbers[part.rows])
    mean = part.predicted(np.zeros(len(part.rows), np.int64))
    ids, number, none = (_log_likelihood(rates, part.clicks) for rates in (by_value, by_curve, mean))
    return Evidence(
        auc_ids=part.auc(by_value),
        auc_number=part.auc(by_curve),
        gain_ids=float((ids - none).mean()),
        gain_number=float((number - none).mean()),
        z_number=_z(number - none),
        z_ids=_z(ids - number),
    )


def auc_alone(texts: pl.Series, numbers: NDArray[np.float64] | None, sample: LabelSample) -> float:
    """The larger AUC of the two readings, over all rows: a missing cell is a value like another."""
    found = sample.auc(sample.predicted(codes_of(texts.gather(sample.rows))))
    if numbers is not None:
        found = max(found, sample.auc(sample.predicted(ranges_of(numbers[sample.rows]))))
    return found


def codes_of(texts: pl.Series) -> NDArray[np.int64]:
    """A code from 1 on for each distinct text, 0 where null."""
    physical = texts.cast(pl.Categorical).to_physical()
    distinct = physical.unique()
    dense = physical.replace_strict(distinct, np.arange(len(distinct)), return_dtype=pl.Int64) if len(distinct) else physical
    return np.where(texts.is_null().to_numpy(), 0, dense.fill_null(0).to_numpy() + 1)


def ranges_of(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Eight ranges of about equally many rows, 1 to 8, and 0 where NaN."""
    real = numbers[~np.isnan(numbers)]
    borders = np.unique(np.quantile(real, np.arange(1, _RANGES) / _RANGES)) if len(real) else np.empty(0)
    return np.where(np.isnan(numbers), 0, np.searchsorted(borders, numbers, side="left") + 1)


def _enough(sample: LabelSample) -> LabelSample | None:
    clicks = int(sample.clicks.sum())
    return sample if min(clicks, len(sample.clicks) - clicks) >= MIN_CLASS else None


def _log_likelihood(rates: NDArray[np.float64], clicks: NDArray[np.bool_]) -> NDArray[np.float64]:
    safe = np.clip(rates, 1e-9, 1 - 1e-9)
    return np.where(clicks, np.log(safe), np.log1p(-safe))


def _z(gains: NDArray[np.float64]) -> float:
    error = float(gains.std()) / np.sqrt(len(gains))
    return float(gains.mean()) / error if error > 0 else 0.0


def _fitted(features: NDArray[np.float64], clicks: NDArray[np.bool_], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logistic regression of the groups' click rates on their mean features, by Newton's method with a weak penalty."""
    rows = np.bincount(groups, minlength=_GROUPS).astype(np.float64)
    present = rows > 0
    rows, hits = rows[present], np.bincount(groups, weights=clicks, minlength=_GROUPS)[present]
    means = np.stack([np.bincount(groups, weights=column, minlength=_GROUPS)[present] / rows for column in features.T], axis=1)
    curve = np.array([np.log(hits.sum() + 0.5) - np.log(rows.sum() - hits.sum() + 0.5), 0.0, 0.0])
    start, penalty = curve.copy(), np.array([1e-6, 1.0, 1.0])
    for _ in range(8):
        rates = _sigmoid(means @ curve)
        gradient = means.T @ (hits - rows * rates) - penalty * (curve - start)
        curvature = (means * (rows * rates * (1 - rates))[:, None]).T @ means + np.diag(penalty)
        curve = curve + np.clip(np.linalg.solve(curvature, gradient), -2.0, 2.0)
    return curve


def _sigmoid(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(odds, -30.0, 30.0)))
