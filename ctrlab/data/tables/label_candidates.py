"""Columns that could be the label, the ways to read each as clicks with the counts of each way, and which one is likely."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import polars as pl

from ctrlab.data.configs import ColumnConfig, EmptyLabel
from ctrlab.data.tables.cells import CellRules
from ctrlab.data.tables.label_names import counts_impressions, is_negated, name_likeliness
from ctrlab.data.tables.labels import ALLOWED_TEXT, LABEL_SETTINGS, is_empty, is_label, label_settings, label_value, reading_text
from ctrlab.data.tables.numbers import read_numbers, read_shares

#: Distinct values up to which a reading is made for each.
_FEW_VALUES = 20
_SHOWN = 3


@dataclass(frozen=True)
class LabelReading:
    """A way to read a column as clicks, as settings of `ColumnConfig`, with what it gives on the inspected rows.

    clicks: number of clicks; a sum of shares where the label is soft. rows: rows that are kept.
    """

    clicks: float
    rows: int
    positive: tuple[str, ...] = ()
    threshold: float | None = None
    empty_label: EmptyLabel = "refuse"
    soft: bool = False
    label_total: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `ColumnConfig` that differ from their defaults."""
        return label_settings(ColumnConfig(name="label", role="label", **{name: getattr(self, name) for name in LABEL_SETTINGS}))

    @property
    def description(self) -> str:
        """How it reads cells, in words."""
        return reading_text(ColumnConfig(name="label", role="label", **self.settings)) or ALLOWED_TEXT

    @property
    def flags(self) -> str:
        """The settings as flags of the command line."""
        parts = [f"--positive {shlex.quote(text)}" for text in self.positive]
        parts += [f"--threshold {self.threshold:g}"] if self.threshold is not None else []
        parts += ["--soft"] if self.soft else []
        parts += [f"--label-total {shlex.quote(self.label_total)}"] if self.label_total else []
        parts += [f"--empty-label {self.empty_label}"] if self.empty_label != "refuse" else []
        return " ".join(parts)


@dataclass(frozen=True)
class LabelCandidate:
    """A column that could be the label.

    readings: the likeliest first; a single one is plain, more are a matter of judgement.
    likeliness: of its name, see `name_likeliness`.
    values: the most frequent values with their rows. distinct: number of values. empty: rows without a value.
    """

    column: str
    readings: tuple[LabelReading, ...]
    likeliness: int
    values: tuple[tuple[str, int], ...]
    distinct: int
    empty: int

    @property
    def named(self) -> bool:
        """Whether its name speaks of a label."""
        return self.likeliness >= 2

    @property
    def plain(self) -> bool:
        """Whether nothing has to be decided: two usual values and no empty cell."""
        return len(self.readings) == 1 and not self.readings[0].settings

    def settled_by(self, settings: Mapping[str, Any]) -> bool:
        """Whether settings answer what is open: which values are clicks, and what becomes of empty cells."""
        given = {name for name, value in settings.items() if value not in ((), None, False, "refuse")}
        wanted: set[str] = set().union(*(reading.settings for reading in self.readings))
        values_open = wanted & {"positive", "threshold", "soft", "label_total"}
        return (not values_open or bool(given - {"empty_label"})) and ("empty_label" not in wanted or "empty_label" in given)

    @property
    def question(self) -> str:
        """Its values and what each reading gives, as half a sentence."""
        shown = ", ".join(f"{value} ({rows:,})" for value, rows in self.values[:5]) + (", ..." if self.distinct > 5 else "")
        held = f"{self.column!r} holds {shown}" + (f" and {self.empty:,} empty cells" if self.empty else "")
        name = f"--label {shlex.quote(self.column)}"
        ways = [
            f"{name} {one.flags}".rstrip() + f" gives {one.clicks:,.6g} clicks in {one.rows:,} rows"
            for one in self.readings[:_SHOWN]
        ]
        return f"{held}: {', '.join(ways)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        readings = [asdict(reading) | {"positive": list(reading.positive)} for reading in self.readings]
        return asdict(self) | {"readings": readings, "values": [list(pair) for pair in self.values]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        readings = tuple(LabelReading(**reading | {"positive": tuple(reading["positive"])}) for reading in values["readings"])
        return cls(**values | {"readings": readings, "values": tuple((text, rows) for text, rows in values["values"])})


def find_label_candidates(
    frame: pl.DataFrame, *, complete: bool = True, missing_words: tuple[str, ...] = ()
) -> tuple[LabelCandidate, ...]:
    """Columns of String cells that could be the label, the likeliest first.

    Args:
        complete: whether these are all rows of the table; in the first rows of a longer one a label may be 0 throughout.
        missing_words: words that mean an empty cell besides the usual ones.

    >>> frame = pl.DataFrame({"rating": ["1", "2", "3", "4"] * 5, "site": list("abcd") * 5})
    >>> [(found.column, found.readings[0].flags) for found in find_label_candidates(frame)]
    [('rating', '--threshold 3')]
    """
    rules = CellRules(missing_words=missing_words)
    candidates = [found for name in frame.columns if (found := _candidate(frame, name, complete, rules))]
    order = {name: place for place, name in enumerate(frame.columns)}
    return tuple(sorted(candidates, key=lambda found: (-found.likeliness, not found.plain, order[found.column])))


def certain_label(candidates: Sequence[LabelCandidate], *, headerless: bool = False) -> str | None:
    """The column that is the label beyond doubt; None where a person must choose.

    One column alone is named most like a label, and its values are plain; or no column is named like one, and one alone has two
    usual values. In a file without names the first column is the label if its values are plain, as in libsvm and Criteo's files.
    """
    named = [found for found in candidates if found.named]
    if named:
        best = [found for found in named if found.likeliness == named[0].likeliness]
        return best[0].column if len(best) == 1 and best[0].plain else None
    plain = [found for found in candidates if found.plain and found.likeliness == 1]
    if headerless and plain and plain[0].column == "column_1":
        return plain[0].column
    return plain[0].column if len(plain) == 1 else None


def label_question(candidates: Sequence[LabelCandidate]) -> str:
    """The question which column is the label and how it is read, with the counts of each answer, as one sentence."""
    best = candidates[0].likeliness if candidates else 0
    likely = [found for found in candidates if found.likeliness == best or (best < 4 and found.likeliness and found.plain)]
    if not likely:
        return (
            f"no column of the table can be the label as it is; one column must hold two values, {ALLOWED_TEXT}; or name a "
            "column with --label and say what counts as a click: --positive VALUE, --threshold NUMBER or --soft"
        )
    shown = "; ".join(found.question for found in likely[:_SHOWN])
    more = f"; and {len(likely) - _SHOWN} columns more" if len(likely) > _SHOWN else ""
    start = "which column is the label" if len(likely) > 1 else "what counts as a click"
    return f"{start} has to be said: {shown}{more}; give one of these (in Python as settings of draft_config)"


def _candidate(frame: pl.DataFrame, name: str, complete: bool, rules: CellRules) -> LabelCandidate | None:
    column, likeliness = frame[name], name_likeliness(name)
    if column.dtype != pl.String:
        return None
    head = column.head(10_000).n_unique()
    if head > (_FEW_VALUES + 10 if likeliness < 3 else len(column)):
        return None
    counts = column.value_counts(sort=True)
    rows: dict[str, int] = {}
    empty = 0
    for text, count in counts.iter_rows():
        if is_empty(text, rules):
            empty += count
        else:
            rows[text.strip()] = rows.get(text.strip(), 0) + count
    readings = _readings(frame, name, rows, empty, likeliness, complete)
    if not readings:
        return None
    values = tuple(sorted(rows.items(), key=lambda item: (label_value(item[0]) is None, label_value(item[0]) or 0.0, item[0])))
    shown = values if len(values) <= _FEW_VALUES else tuple(rows.items())[:5]
    return LabelCandidate(name, tuple(readings), likeliness, shown, len(values), empty)


def _readings(
    frame: pl.DataFrame, name: str, rows: dict[str, int], empty: int, likeliness: int, complete: bool
) -> list[LabelReading]:
    total = sum(rows.values())
    zero_so_far = likeliness >= 3 and not complete and set(map(label_value, rows)) == {0.0}
    if is_label(rows) or zero_so_far:
        clicks = sum(count for text, count in rows.items() if label_value(text) == 1.0)
        return _with_empty(LabelReading(clicks, total), empty)
    if len(rows) == 1 and empty and likeliness >= 2:
        ((text, count),) = rows.items()
        positive = () if label_value(text) == 1.0 else (text,)
        return [LabelReading(count, total + empty, positive, empty_label="negative")]
    if len(rows) == 2 and likeliness:
        by_doubt = sorted(rows, key=lambda text: (is_negated(text), -(label_value(text) or 0.0), rows[text]))
        return [way for text in by_doubt for way in _with_empty(LabelReading(rows[text], total, (text,)), empty)[:1]]
    if likeliness < 3 or len(rows) < 3:
        return []
    texts = pl.Series(list(rows), dtype=pl.String)
    numbers, shares = read_numbers(texts)[0], read_shares(texts)
    if np.isnan(numbers).any():
        if len(rows) > _FEW_VALUES:
            return []
        named = sorted(rows, key=lambda text: (-name_likeliness(text), rows[text]))
        return [way for text in named for way in _with_empty(LabelReading(rows[text], total, (text,)), empty)[:1]]
    return _number_readings(frame, name, numbers, shares, np.array(list(rows.values())), empty)


def _number_readings(frame: pl.DataFrame, name: str, numbers: Any, shares: Any, counts: Any, empty: int) -> list[LabelReading]:
    total = int(counts.sum())
    readings = []
    if (numbers >= 0).all() and (numbers == np.floor(numbers)).all() and (impressions := _impressions(frame, name)):
        clicks = float(numbers @ counts)
        shown = int((np.nan_to_num(read_numbers(frame[impressions])[0]) > 0).sum())
        readings.append(LabelReading(clicks, min(shown, total), label_total=impressions))
    if (shares >= 0).all() and (shares <= 1).all():
        readings.append(LabelReading(float(shares @ counts), total, soft=True))
    if len(numbers) <= _FEW_VALUES:
        borders = np.sort(numbers)[1:]
    else:
        borders = np.unique(np.quantile(np.repeat(numbers, np.minimum(counts, 1000)), (0.5, 0.75, 0.9)))
    ways = [LabelReading(int(counts[numbers >= border].sum()), total, threshold=float(border)) for border in borders]
    # The lowest threshold that takes at most half of the rows as clicks comes first.
    ways.sort(key=lambda way: (way.clicks > total / 2, abs(way.clicks / total - 0.5)))
    return [one for way in [*readings, *ways] for one in _with_empty(way, empty)[:1]]


def _with_empty(reading: LabelReading, empty: int) -> list[LabelReading]:
    """The reading without the rows that have no label, and with them as no clicks."""
    if not empty:
        return [reading]
    return [
        replace(reading, empty_label="drop"),
        replace(reading, rows=reading.rows + empty, empty_label="negative"),
    ]


def _impressions(frame: pl.DataFrame, clicks: str) -> str | None:
    """The column of impressions beside one that counts clicks: named so, and never smaller."""
    for name in frame.columns:
        if name == clicks or not counts_impressions(name):
            continue
        shown, clicked = read_numbers(frame[name])[0], read_numbers(frame[clicks])[0]
        both = ~np.isnan(shown) & ~np.isnan(clicked)
        if both.any() and (shown[both] >= clicked[both]).all() and (shown[both] > 1).any():
            return name
    return None
