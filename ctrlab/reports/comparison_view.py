"""A comparison as one JSON object, from which `assets/comparison.js` draws table, charts and the card of the chosen model.

The Compare page and the HTML report draw the same object with the same script.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ctrlab.evaluation.evidence import has_enough_clicks
from ctrlab.figures.text import count, difference, percent, size, times
from ctrlab.reports.comparison import LATENCY_BATCH_SIZES, SPEED_BATCH, SPEED_RATIO
from ctrlab.reports.verdict import Row, verdict

#: Shown for a number that is not known.
NONE = "\N{EN DASH}"
RUNTIMES = {"torch": "PyTorch", "onnx": "ONNX Runtime"}


@dataclass(frozen=True)
class Column:
    """One column of the table.

    key: in `comparison_table`. write: a number as text; None for a column of texts.
    better: +1 if higher is better, -1 if lower is, 0 if neither. shown: without being asked for.
    log: whether its axis is logarithmic. sort: key of the numbers that texts are sorted by.
    """

    key: str
    title: str
    write: Callable[[float], str] | None = None
    better: int = 0
    shown: bool = False
    log: bool = False
    sort: str = ""
    help: str = ""


def _milliseconds(value: float) -> str:
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def _auc(value: float) -> str:
    return f"{value:.4f}"


def _timings() -> tuple[Column, ...]:
    return tuple(
        column
        for runtime, title in RUNTIMES.items()
        for batch in LATENCY_BATCH_SIZES
        for column in (
            Column(
                f"{runtime}_p50_ms_{batch}", f"{title}, batch {batch}", _milliseconds, -1, log=True,
                shown=(runtime, batch) == ("torch", SPEED_BATCH), help="Median time of a call.",
            ),
            Column(f"{runtime}_p99_ms_{batch}", f"{title}, batch {batch}, p99", _milliseconds, -1, log=True,
                   help="99 % of calls are faster."),
            Column(f"{runtime}_rows_per_second_{batch}", f"{title}, batch {batch}, rows/s", count, 1, log=True),
        )
    )  # fmt: skip


COLUMNS = (
    Column("method", "Method", shown=True),
    Column("ranks", "Ranks", shown=True, sort="rank_share"),
    Column("rank_share", "Ranks kept", lambda share: percent(share, 0), help="Ranks over widths of all layers that can be cut."),
    Column("bits", "Bits", count, shown=True, log=True, help="Of the served weights."),
    Column("auc", "AUC", _auc, 1, shown=True),
    Column("auc_change", "AUC change", difference, 1, shown=True,
           help="From the baseline on the same rows, with its 95 % interval."),
    Column("log_loss", "Log loss", _auc, -1, shown=True),
    Column("measure", "Own measure", lambda value: f"{value:.6g}", 1, shown=True,
           help="What the function `evaluate` of a model from outside gave; higher is better."),
    Column("bytes", "Size", size, -1, shown=True, log=True, help="Of the served form."),
    Column("smaller", "Smaller", times, 1, shown=True, log=True, help="Bytes of the baseline over its own."),
    *_timings(),
    Column("parameters", "Parameters", count, -1, log=True),
    Column("parameters_tables", "Parameters of tables", count, -1, log=True),
    Column("parameters_dense", "Parameters, dense part", count, -1, log=True),
    Column("macs", "MACs per row", count, -1, log=True),
    Column("calibration_ratio", "Predicted / observed", lambda ratio: f"{ratio:.3f}", help="Calibration: 1 is right."),
    Column("calibration_error", "Calibration error", _auc, -1),
    Column("measured_rows", "Rows measured on", count),
    Column("measured_clicks", "Clicks among them", count),
    Column("architecture", "Architecture"),
    Column("tags", "Tags", shown=True),
    Column("note", "Note", shown=True),
)  # fmt: skip
#: Costs that the scatter can have on its axis, and the axes of the parallel coordinates.
COSTS = ("bytes", "parameters", "macs", f"torch_p50_ms_{SPEED_BATCH}")
AXES = ("rank_share", "bits", "bytes", f"torch_p50_ms_{SPEED_BATCH}", "auc_change")


def comparison_view(table: pd.DataFrame, *, baseline: str | None = None, chosen: str = "") -> dict[str, Any]:
    """The comparison as plain JSON types.

    Args:
        table: a comparison table with finetune, run_group and doubts (`services.compared`); star and note where they are known.
        baseline: id of the row that the others are compared with; the first original when not given.
        chosen: id of the row whose card is shown first; the best compressed one when not given.

    Returns:
        columns (key, title, help, better, shown, log, sort), costs and axes (keys of columns), runtimes, batches, rows, baseline
        and chosen (ids). A row has id, name, kind, star, values and texts by column, change ([low, high] or null), interval (of
        its AUC, likewise), and card: the figures and the sentence of its verdict.
    """
    columns = [column for column in COLUMNS if column.key in table and _says_something(table, column)]
    records = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    reference = _reference(records, baseline)
    rows = [_row(row, columns, reference, records) for row in records]
    return {
        "columns": [_described(column) for column in columns],
        "costs": [key for key in COSTS if key in table],
        "axes": [key for key in AXES if key in table],
        "runtimes": RUNTIMES,
        "batches": list(LATENCY_BATCH_SIZES),
        "rows": rows,
        "baseline": reference["id"] if reference is not None else "",
        "chosen": chosen if chosen in set(table["id"]) else best_of(table),
    }


def best_of(table: pd.DataFrame) -> str:
    """Id of the row whose card comes first: the last compressed model that was measured, else the last one, else the first."""
    compressed = table[table["kind"] == "compressed"]
    measured = compressed[compressed["auc"].notna()]
    for rows in (measured, compressed, table):
        if len(rows):
            return str((rows if rows is table else rows.iloc[::-1])["id"].iloc[0])
    return ""


def _reference(rows: Sequence[Row], baseline: str | None) -> Row | None:
    return next((row for row in rows if (row["id"] == baseline if baseline else row["kind"] == "original")), None)


def _says_something(table: pd.DataFrame, column: Column) -> bool:
    values = table[column.key]
    return bool((values.fillna("") != "").any()) if column.write is None else bool(values.notna().any()) or column.shown


def _described(column: Column) -> dict[str, Any]:
    return {
        "key": column.key, "title": column.title, "help": column.help, "better": column.better, "shown": column.shown,
        "log": column.log, "sort": column.sort or column.key, "text": column.write is None,
    }  # fmt: skip


def _row(row: Row, columns: Sequence[Column], reference: Row | None, rows: Sequence[Row]) -> dict[str, Any]:
    numbers = {column.key: _number(row[column.key]) for column in columns if column.write is not None}
    numbers |= {key: _number(row.get(key)) for key in ("rank_share",)}
    texts = {column.key: text_of(column, row[column.key]) for column in columns}
    return {
        "id": row["id"], "name": row["name"], "kind": row["kind"], "star": bool(row.get("star", False)),
        "values": numbers, "texts": texts, "change": _ends(row, "auc_change"), "interval": _ends(row, "auc"),
        "card": _card(row, reference, rows),
    }  # fmt: skip


def text_of(column: Column, value: Any) -> str:
    """A value of a column as it is shown."""
    if column.write is None:
        return str(value or "") if value == value else ""
    return NONE if _number(value) is None else column.write(float(value))


def _number(value: Any) -> float | None:
    """A number with six digits; None for what is not known."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _ends(row: Row, name: str) -> list[float] | None:
    low, high = _number(row[f"{name}_low"]), _number(row[f"{name}_high"])
    return None if low is None or high is None else [low, high]


def _card(row: Row, reference: Row | None, rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of the verdict as texts ("" where not known), and its sentence."""
    if reference is None or row["id"] == reference["id"]:
        return dict.fromkeys(("smaller", "change", "certainty", "faster", "speed", "sentence"), "")
    factor = reference["bytes"] / max(row["bytes"], 1)
    return {
        "smaller": _ratio(factor, "smaller", "larger"),
        "change": "" if _number(row["auc_change"]) is None else difference(row["auc_change"]),
        "certainty": _certainty(row),
        **_speed(row),
        "sentence": verdict(reference, row, rows),
    }


def _speed(row: Row) -> dict[str, str]:
    """The ratio of throughput by timings of one job, and beside it the interval, or why there is no verdict."""
    ratio, low, high = (_number(row[f"{SPEED_RATIO}{end}_{SPEED_BATCH}"]) for end in ("", "_low", "_high"))
    reason = row[f"{SPEED_RATIO}_reason_{SPEED_BATCH}"]
    if reason or ratio is None or low is None or high is None:
        return {"faster": "", "speed": f"no verdict: {reason}" if reason else "not timed together"}
    same = low <= 1 <= high
    ends = f"95 % {low:.2f}x to {high:.2f}x, PyTorch, batch {SPEED_BATCH}"
    return {"faster": "as fast" if same else _ratio(ratio, "faster", "slower"), "speed": ends}


def _ratio(value: float, above: str, below: str) -> str:
    """A factor in words: "4.0x smaller", "1.2x larger", "as small" within 5 %."""
    if 0.95 < value < 1.05:
        return f"as {above.removesuffix('er')}" if above != "smaller" else "as large"
    return f"{times(value)} {above}" if value >= 1 else f"{times(1 / value)} {below}"


def _certainty(row: Row) -> str:
    ends = _ends(row, "auc_change")
    if ends is None:
        return ""
    if not has_enough_clicks(row["measured_rows"], row["measured_clicks"]):
        return "too few clicks for a verdict"
    if ends[0] <= 0 <= ends[1]:
        return "inside the noise"
    return "a measurable gain" if ends[0] > 0 else "a measurable loss"
