"""One sentence about a model against its original: size, speed, AUC with its certainty, controls and seeds."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctrlab.evaluation.evidence import ENOUGH_CLICKS, has_enough_clicks
from ctrlab.figures.text import difference, rows_and_clicks, times
from ctrlab.reports.comparison import SPEED_BATCH, SPEED_RATIO

#: Ratios of speed or size within 5 % are reported as no difference.
_SAME = 1.05

Row = Mapping[str, Any]


def verdict(original: Row, other: Row, rows: Sequence[Row]) -> str:
    """What `other` gains and loses against `original`, in a sentence or two.

    Args:
        original, other: two of `rows`.
        rows: those of a `comparison_table` with the columns finetune (how a model was fine-tuned; "" if it was not), run_group
            (equal for models that differ in their seed alone) and doubts (what speaks against a model; "" if nothing does).
    """
    text = ", ".join(part for part in (_size(original, other), _speed(original, other)) if part)
    measured, clicks = other["measured_rows"], other["measured_clicks"]
    change = other["auc"] - original["auc"]
    doubts = _doubts(original, other)
    if change != change and _is_number(other.get("measure")) and _is_number(original.get("measure")):
        return f"{text}; its own measure is {other['measure']:.6g}, where the original has {original['measure']:.6g}.{doubts}"
    if change != change:
        return f"{text}; {_no_auc(measured, clicks, other['split'])}.{doubts}"
    enough = has_enough_clicks(measured, clicks)
    interval = certainty(other["auc_change_low"], other["auc_change_high"], change, enough=enough)
    text += f"; AUC {difference(change)}{interval} on {rows_and_clicks(measured, clicks, other['split'])}"
    return text + (_control(other, change, rows) if enough else ".") + _seeds(other, rows) + doubts


def _is_number(value: float | None) -> bool:
    return value is not None and value == value


def _no_auc(rows: float | None, clicks: float | None, split: str) -> str:
    """Why there is no AUC: not measured, or rows of one class."""
    if rows is None or rows != rows or clicks not in (0, rows):
        return "its AUC has not been measured"
    return f"an AUC is not defined on {rows_and_clicks(rows, clicks, split)}"


def certainty(low: float, high: float, change: float, *, enough: bool = True) -> str:
    """The 95 % interval of a change of AUC and whether it is measurable; "" without an interval (NaN).

    enough: whether there are `ENOUGH_CLICKS`; with fewer there is neither gain nor loss.

    >>> certainty(0.0002, 0.0010, 0.0006)
    ' (95 % +0.0002 to +0.0010), a measurable gain,'
    >>> certainty(0.0002, 0.0010, 0.0006, enough=False)
    ' (95 % +0.0002 to +0.0010), no verdict below 30 clicks and 30 non-clicks,'
    >>> certainty(float("nan"), float("nan"), 0.0006)
    ''
    """
    if low != low:
        return ""
    if not enough:
        finding = f"no verdict below {ENOUGH_CLICKS} clicks and {ENOUGH_CLICKS} non-clicks"
        return f" (95 % {difference(low)} to {difference(high)}), {finding},"
    within_noise = "no measurable loss" if change <= 0 else "no measurable gain"
    finding = within_noise if low <= 0 <= high else "a measurable gain" if low > 0 else "a measurable loss"
    return f" (95 % {difference(low)} to {difference(high)}), {finding},"


def _doubts(original: Row, other: Row) -> str:
    """What speaks against either model."""
    found = [f" In doubt: {row['doubts']}." for row in (other,) if row["doubts"]]
    if original["doubts"]:
        found.append(f" The original is in doubt, so a comparison with it says little: {original['doubts']}.")
    return "".join(found)


def _size(original: Row, other: Row) -> str:
    factor = original["bytes"] / max(other["bytes"], 1)
    return f"{times(factor)} smaller" if factor >= _SAME else "no smaller"


def _speed(original: Row, other: Row) -> str:
    """The ratio of throughput with its interval, of timings of one job; why there is none; "" where nothing was timed."""
    ratio, low, high = (other[f"{SPEED_RATIO}{end}_{SPEED_BATCH}"] for end in ("", "_low", "_high"))
    reason = other[f"{SPEED_RATIO}_reason_{SPEED_BATCH}"]
    if reason:
        return f"no verdict on speed: {reason}; time again"
    if ratio != ratio:
        return ""
    if low <= 1 <= high or 1 / _SAME < ratio < _SAME:
        return f"as fast at batch {SPEED_BATCH} (95 % {low:.2f}x to {high:.2f}x)"
    if ratio > 1:
        return f"{times(ratio)} faster at batch {SPEED_BATCH} (95 % {times(low)} to {times(high)})"
    return f"{times(1 / ratio)} slower at batch {SPEED_BATCH} (95 % {times(1 / high)} to {times(1 / low)})"


def _control(row: Row, change: float, rows: Sequence[Row]) -> str:
    """What fine-tuning alone gave; without a control, a warning where there is a gain to explain."""
    if not row["finetune"] or row["kind"] == "control":
        return "."
    controls = _changes(other for other in rows if other["kind"] == "control" and other["finetune"] == row["finetune"])
    if controls:
        return f"; fine-tuning alone gave {difference(statistics.fmean(controls))}."
    gain = change > 0 and not row["auc_change_low"] <= 0  # an interval that holds 0 needs no explanation
    return ". Without a control (the original with the same fine-tuning) this gain may come from fine-tuning." if gain else "."


def _seeds(row: Row, rows: Sequence[Row]) -> str:
    """Mean and standard deviation over the models that differ in their seed alone."""
    alike = _changes(other for other in rows if other["kind"] == row["kind"] and other["run_group"] == row["run_group"])
    if len(alike) < 2:
        return " One seed."
    return f" Over {len(alike)} seeds {difference(statistics.fmean(alike))}, standard deviation {statistics.stdev(alike):.4f}."


def _changes(rows: Iterable[Row]) -> list[float]:
    """The changes of AUC that are known."""
    return [row["auc_change"] for row in rows if row["auc_change"] == row["auc_change"]]
