"""Formatting of numbers, durations and settings for all pages; counts, sizes and shares as in `figures.text`."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ctrlab.figures import text
from ctrlab.figures.text import MINUS, count, percent, plural, size, times

__all__ = [
    "MINUS", "accuracy", "ago", "auc", "count", "difference", "duration", "number", "percent", "plural", "rate", "setting",
    "size", "times",
]  # fmt: skip

NONE = "\N{EN DASH}"


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def number(value: float | None) -> str:
    """`count`, with a dash for None and NaN."""
    return NONE if _missing(value) else count(value)  # type: ignore[arg-type]


def accuracy(evaluation: Mapping[str, Any]) -> str:
    """The AUC of an evaluation's summary, or without one the number that an outside model's own function gave.

    >>> accuracy({"metrics": {"auc": 0.75}}), accuracy({"metrics": {"auc": None}, "measure": 0.5})
    ('AUC 0.7500', 'own measure 0.5')
    """
    found, own = evaluation["metrics"].get("auc"), evaluation.get("measure")
    return f"own measure {own:.6g}" if found is None and own is not None else f"AUC {auc(found)}"


def auc(value: float | None) -> str:
    """0.76291 -> '0.7629'."""
    return NONE if _missing(value) else f"{value:.4f}"


def difference(value: float | None) -> str:
    """0.00061 -> '+0.0006', -0.0012 -> '−0.0012' (a true minus sign)."""
    return NONE if _missing(value) else text.difference(value)  # type: ignore[arg-type]


def rate(rows_per_second: float | None) -> str:
    """61_000 -> '61.0 k rows/s'."""
    return NONE if _missing(rows_per_second) else f"{count(rows_per_second)} rows/s"  # type: ignore[arg-type]


def duration(seconds: float | None) -> str:
    """0.4 -> 'under 1 s', 42 -> '42 s', 95 -> '1 min 35 s', 754 -> '13 min', 7300 -> '2 h 2 min'."""
    if seconds is None or math.isnan(seconds):
        return NONE
    if seconds < 1:
        return "under 1 s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours == 0:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """'just now', '3 min ago', '2 h ago', then the date."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if seconds < 45:
        return "just now"
    if seconds < 3600:
        return f"{max(1, round(seconds / 60))} min ago"
    if seconds < 24 * 3600:
        return f"{round(seconds / 3600)} h ago"
    return f"{moment:%d %b %Y}"


def setting(value: Any) -> str:
    """A setting's value in a list of settings: tuples as '400, 400', yes/no, floats without noise."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not set"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
