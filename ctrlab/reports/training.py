"""A training in words, and what speaks against a trained model. Loads without torch."""

import math
from collections.abc import Mapping
from typing import Any

from ctrlab.evaluation.evidence import has_enough_clicks, rarer_class
from ctrlab.figures.text import count, plural, rows_and_clicks
from ctrlab.training.automatic import schedule_for
from ctrlab.training.configs import FitConfig

#: Fewer optimizer steps hardly move tables from their start.
ENOUGH_STEPS = 100
#: A validation log loss that fell by this share between the last two evaluations was still falling.
STILL_FALLING = 0.005
#: Rows that a covariance needs for each output of a layer.
ROWS_PER_OUTPUT = 10
#: Mean prediction and click-through rate may differ by this share, and by 3 standard errors of the number of clicks.
_CALIBRATED = 0.2

_TITLES = {"auc": "AUC", "log_loss": "log loss"}


def planned_training(config: FitConfig, num_rows: int, num_clicks: float) -> str:
    """What a training will do, and the rows that it follows from.

    >>> planned_training(FitConfig(), 8000, 700)
    'from 8.00 k rows and 700 clicks: batch 64, up to 20 epochs with early stopping, best by log loss'
    >>> planned_training(FitConfig(patience=0, monitor="auc", epochs=1), 40_000_000, 10_000_000)
    'from 40.0 M rows and 10.0 M clicks: batch 1024, 1 epoch, best by AUC'
    """
    batch_size, epochs, _ = schedule_for(config, num_rows)
    passes = plural(epochs, "epoch")
    if config.patience and epochs > 1:
        passes = f"up to {passes} with early stopping"
    source = f"{count(num_rows)} rows and {count(num_clicks)} clicks"
    return f"from {source}: batch {batch_size}, {passes}, best by {_TITLES[config.monitor]}"


def finished_training(training: Mapping[str, Any]) -> str:
    """What a training did, from `FitResult.summary`.

    >>> finished_training({"steps": 88, "best_step": 44, "stopped_early": True, "history": [{"epoch": 0}, {"epoch": 1}]})
    'stopped early in epoch 2 after 88 steps; the best was at step 44'
    """
    epoch = training["history"][-1]["epoch"] + 1 if training["history"] else 1
    end = f"stopped early in epoch {epoch}" if training["stopped_early"] else f"ended with epoch {epoch}"
    return f"{end} after {plural(training['steps'], 'step')}; the best was at step {training['best_step']}"


def training_doubts(training: Mapping[str, Any] | None) -> list[str]:
    """Why a model may be untrained, from `FitResult.summary`; empty where it is not known how it was trained.

    >>> training_doubts({"steps": 7, "best_step": 7, "stopped_early": False, "history": []})
    ['it is hardly trained: 7 steps, where 100 are needed at least; lower the batch size or raise the epochs']
    """
    if not training:
        return []
    doubts = []
    if training["steps"] < ENOUGH_STEPS and not training["stopped_early"]:
        steps = plural(training["steps"], "step")
        doubts.append(
            f"it is hardly trained: {steps}, where {ENOUGH_STEPS} are needed at least; lower the batch size or raise the epochs"
        )
    losses = [row["valid_log_loss"] for row in training["history"] if row.get("valid_log_loss") is not None]
    fell = len(losses) > 1 and losses[-1] == min(losses) and losses[-1] < (1 - STILL_FALLING) * losses[-2]
    if fell and not training["stopped_early"]:
        doubts.append("its validation log loss was still falling when the training ended; raise the epochs")
    return doubts


def measurement_doubts(evaluation: Mapping[str, Any] | None) -> list[str]:
    """What speaks against a model, or against its measurement, from the summary of an evaluation.

    >>> metrics = {"auc": 0.48, "num_rows": 800, "num_clicks": 200, "calibration_ratio": 1.0}
    >>> measurement_doubts({"split": "test", "metrics": metrics})
    ['its AUC of 0.4800 is below 0.5: it orders rows worse than chance; check which label value is a click']
    """
    if not evaluation:
        return []
    metrics = evaluation["metrics"]
    auc, rows, clicks = metrics["auc"], metrics["num_rows"], metrics["num_clicks"]
    if rows is None:  # an outside model that was measured by its own function alone
        return []
    doubts = []
    if evaluation.get("constant_prediction"):
        doubts.append("it predicts the same for every row; train it longer, or give it other columns")
    elif auc is not None and auc < 0.5:
        doubts.append(f"its AUC of {auc:.4f} is below 0.5: it orders rows worse than chance; check which label value is a click")
    elif auc is not None and evaluation.get("auc_interval", {}).get("low", 1.0) <= 0.5:
        doubts.append(f"its AUC of {auc:.4f} is not measurably above 0.5, that of chance")
    if not has_enough_clicks(rows, clicks):
        measured = rows_and_clicks(rows, clicks, evaluation["split"])
        doubts.append(f"its AUC is {'not defined' if auc is None else 'hardly known'}: it was measured on {measured}")
    elif (ratio := metrics["calibration_ratio"]) is not None and _is_off(ratio, rarer_class(rows, clicks)):
        doubts.append(f"it predicts {ratio:.2f} times as many clicks as there are")
    return doubts


def _is_off(ratio: float, clicks: float) -> bool:
    return abs(ratio - 1) > max(_CALIBRATED, 3 / math.sqrt(clicks))


def spectra_doubts(calibration_rows: int | None, widest: int) -> list[str]:
    """Whether spectra were computed from fewer rows than their widest linear layer needs; None: not computed.

    >>> spectra_doubts(560, 400)
    ['its spectra are from 560 rows, where a layer of 400 outputs needs 4,000; small directions are noise']
    """
    needed = ROWS_PER_OUTPUT * widest
    if not calibration_rows or calibration_rows >= needed:
        return []
    return [
        f"its spectra are from {calibration_rows:,} rows, where a layer of {widest} outputs needs {needed:,}; "
        "small directions are noise"
    ]
