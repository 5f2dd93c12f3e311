"""Scale and intercept of the logit, fitted on validation rows."""

import numpy as np
from numpy.typing import NDArray

from ctrlab.errors import ServingError
from ctrlab.serving.bundle.raw_graph import Calibration

_STEPS = 50


def fit_calibration(logits: NDArray[np.float32], targets: NDArray[np.float32]) -> Calibration:
    """The logistic regression of clicks on the logit, by Newton's method.

    Args:
        logits: (n,). targets: `Split.targets`, (n,) clicks, or (n, 2) weights of clicks and non-clicks.

    Raises:
        ServingError: the rows have no click, or no row without one; or the fit does not settle.

    >>> logits = np.array([-2.0, -2.0, -2.0, 0.0, 0.0, 2.0], np.float32)
    >>> found = fit_calibration(logits, np.array([0, 0, 1, 0, 1, 1], np.float32))
    >>> round(found.slope, 2), round(found.intercept, 2)
    (0.7, 0.52)
    """
    clicks, others = (targets, 1 - targets) if targets.ndim == 1 else (targets[:, 0], targets[:, 1])
    clicks, total = clicks.astype(np.float64), (clicks + others).astype(np.float64)
    if not 0 < clicks.sum() < total.sum():
        raise ServingError("probabilities cannot be calibrated: the validation rows have clicks alone, or none")
    design = np.stack([logits.astype(np.float64), np.ones(len(logits))], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        found = 1 / (1 + np.exp(-design @ weights))
        curvature = (design * (total * found * (1 - found))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (clicks - total * found))
        weights = weights + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            return Calibration(float(weights[0]), float(weights[1]))
    raise ServingError("probabilities cannot be calibrated: the scale of the logit does not settle on the validation rows")
