"""Output of the command line: progress on stderr, results on stdout, one JSON object with `--json`."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from ctrlab.errors import ConfigError
from ctrlab.figures.text import count, difference, rows_and_clicks
from ctrlab.reports.comparison import RUNTIMES, SPEED_BATCH
from ctrlab.storage import Job


class ProgressLine:
    """Progress of a job on one line of stderr; one line per 10 % where stderr is not a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._last = ("", -1)
        self._shown_at = 0.0

    def __call__(self, job: Job) -> None:
        if self._stream.isatty():
            self._rewrite(job)
        else:
            self._append(job)

    def _rewrite(self, job: Job) -> None:
        if time.monotonic() - self._shown_at < 0.1 and job.active:
            return
        self._shown_at = time.monotonic()
        end = "" if job.active else "\n"
        self._stream.write(f"\r\x1b[K{_sentence(job)}{end}")
        self._stream.flush()

    def _append(self, job: Job) -> None:
        mark = (job.id, int(job.progress * 10))
        if mark != self._last:
            self._last = mark
            print(_sentence(job), file=self._stream, flush=True)


def _sentence(job: Job) -> str:
    eta = f", {job.eta_seconds:.0f} s left" if job.eta_seconds and job.active else ""
    return f"{job.title}: {job.progress:4.0%} {job.message}{eta}"


def read_text(path: Path, content: str) -> str:
    """The text of a file that the user named.

    Args:
        content: what the file should hold, for the error.

    Raises:
        ConfigError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({_reason(error)}); give {content}") from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output, NaN written as null."""
    print(json.dumps(_jsonable(value), allow_nan=False, default=str))


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and value != value else value


def table_text(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An aligned plain-text table; numbers are right-aligned."""
    cells = [[str(cell) for cell in row] for row in rows]
    numeric = [
        bool(cells) and all(not isinstance(cell, str) or cell == "" for cell in column) for column in zip(*rows, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    numeric = numeric or [False] * len(headers)

    def line(row: Sequence[str]) -> str:
        parts = [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, numeric, strict=True)]
        return "  ".join(parts).rstrip()

    return "\n".join([line(headers), line(["-" * width for width in widths]), *map(line, cells)])


def comparison_text(table: pd.DataFrame) -> str:
    """The comparison as a text table with 95 % intervals and what it was measured on; sizes are relative to the first row."""
    headers = [
        "model", "AUC", "95 %", "AUC change", "95 %", "log loss", "predicted/observed", "tables", "dense", "size", "smaller",
        "MACs/row", "torch rows/s", "ONNX rows/s", "torch speed", "ONNX speed",
    ]  # fmt: skip
    original = table.iloc[0]
    text = table_text(headers, [_comparison_cells(row, original) for _, row in table.iterrows()])
    own = [f"{row['name']}: own measure {row['measure']:.6g}" for _, row in table.iterrows() if row["measure"] == row["measure"]]
    return "\n".join([text, *own, *_measured_on(table), *_speed_notes(table)])


def _comparison_cells(row: "pd.Series[Any]", original: "pd.Series[Any]") -> list[str]:
    rates = [row[f"{runtime}_rows_per_second_{SPEED_BATCH}"] / 1e3 for runtime in RUNTIMES]
    thousand_rows = ["-" if rate != rate else f"{rate:.0f} k" for rate in rates]
    speeds = [_speed(row, runtime) for runtime in RUNTIMES]
    millions = [f"{row[part] / 1e6:.3f} M" for part in ("parameters_tables", "parameters_dense")]
    smaller = f"{original['parameters'] / row['parameters']:.2f}x"
    size, macs = f"{row['bytes'] / 1e6:.2f} MB", f"{row['macs'] / 1e3:.0f} k"
    auc, interval = _given(f"{row['auc']:.4f}"), _span(row, "auc", "{:.4f}".format)
    change = "-" if row["auc_change"] != row["auc_change"] else difference(row["auc_change"])
    accuracy = [auc, interval, change, _span(row, "auc_change", difference)]
    accuracy += [_given(f"{row[name]:.{digits}f}") for name, digits in (("log_loss", 4), ("calibration_ratio", 3))]
    return [row["name"], *accuracy, *millions, size, smaller, macs, *thousand_rows, *speeds]


def _speed(row: "pd.Series[Any]", runtime: str) -> str:
    """The ratio of throughput to the original's with its interval; "-" for the original, and where there is no verdict."""
    ratio, low, high = (row[f"{runtime}_speedup{end}_{SPEED_BATCH}"] for end in ("", "_low", "_high"))
    if ratio != ratio or row[f"{runtime}_speedup_reason_{SPEED_BATCH}"]:
        return "-"
    return f"{ratio:.2f}x ({low:.2f} to {high:.2f})"


def _given(number: str) -> str:
    return "-" if number == "nan" else number


def _span(row: "pd.Series[Any]", name: str, text: Callable[[float], str]) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "-" if low != low else f"{text(low)} to {text(high)}"


def _measured_on(table: pd.DataFrame) -> list[str]:
    """A line for each set of rows that models were measured on."""
    measured = table[table["measured_rows"].notna()]
    found = measured[["measured_rows", "measured_clicks", "split"]].drop_duplicates().itertuples(index=False, name=None)
    return [f"measured on {rows_and_clicks(rows, clicks, split)}" for rows, clicks, split in found]


def _speed_notes(table: pd.DataFrame) -> list[str]:
    """What the ratios of speed are of, and why a model has none."""
    lines = [
        f"{row['name']}, {title}: no verdict on speed, {reason}; `compare --time-again` times all together"
        for runtime, title in zip(RUNTIMES, ("torch", "ONNX"), strict=True)
        for _, row in table.iterrows()
        if (reason := row[f"{runtime}_speedup_reason_{SPEED_BATCH}"])
    ]
    timed = table[[f"{runtime}_speedup_{SPEED_BATCH}" for runtime in RUNTIMES]].notna().any(axis=None)
    meaning = f"speed: throughput at batch {SPEED_BATCH} divided by the original's, timed in turns in one job, with 95 % interval"
    return [meaning, *lines] if timed or lines else []


def segments_text(table: pd.DataFrame) -> str:
    """Segments as a text table; intervals hold for all segments together."""
    headers = ["segment", "rows", "clicks", "AUC before", "after", "change", "together 95 %", "log loss", "together 95 %"]
    lines = [
        (
            row["segment"], count(row["rows"]), count(row["clicks"]), f"{row['auc_reference']:.4f}", f"{row['auc']:.4f}",
            difference(row["auc_change"]), _span(row, "auc_change", difference), difference(row["log_loss_change"]),
            _span(row, "log_loss_change", difference),
        )
        for _, row in table.iterrows()
    ]  # fmt: skip
    return table_text(headers, lines)
