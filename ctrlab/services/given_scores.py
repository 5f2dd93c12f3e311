"""Scores that were made elsewhere: how good they are, and how much better than others on the same rows. Needs no store."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.config import Config, option
from ctrlab.data.configs import ColumnConfig, SourceConfig
from ctrlab.data.tables.cells import CellRules
from ctrlab.data.tables.labels import LabelEncoder
from ctrlab.data.tables.notes import Note
from ctrlab.data.tables.numbers import find_number_formats, read_numbers
from ctrlab.data.tables.reader import open_table
from ctrlab.errors import ConfigError, DataError
from ctrlab.evaluation.delong import Interval, auc_difference, auc_interval, log_loss_difference
from ctrlab.evaluation.evidence import has_enough_clicks
from ctrlab.evaluation.metrics import Metrics, metrics_of

#: Probabilities nearer to 0 or 1 count as this near: the log loss of a certain mistake is infinite.
NEAREST = 1e-7
#: Segments of one column: its most frequent values.
SEGMENTS = 12


@dataclass(frozen=True, kw_only=True)
class GivenScoresConfig(Config):
    """Where scores, labels and other scores are.

    >>> GivenScoresConfig(path="predictions.csv", score="p").logits
    False
    """

    path: str = option(help="The table with the scores: any table that can be encoded.")
    score: str = option("score", help="The column of the scores.")
    against: str = option(
        "", help="Other scores of the same rows: a column of the table, or another table with a column --score."
    )
    key: str = option("", help="The column that names a row in both tables; without it rows are matched by their order.")
    weight: str = option("", help="The column of the rows' weights, such as impressions.")
    logits: bool = option(False, help="Scores are logits, not probabilities.")
    segments: tuple[str, ...] = option((), label="Segment columns", help="Also by the most frequent values of these columns.")


@dataclass(frozen=True)
class SegmentScore:
    """Scores within the rows of one value. change: of the AUC against the others; None without any."""

    column: str
    value: str
    metrics: Metrics
    change: Interval | None


@dataclass(frozen=True)
class ScoreReport:
    """What scores are worth.

    auc: with its interval; None where all rows are of one class. normalised_entropy: log loss over that of the click-through
    rate alone; below 1 is better than that. auc_change, log_loss_change: against the other scores. segments: those with enough
    clicks and non-clicks. notes: rows left out, and what was changed.
    """

    metrics: Metrics
    auc: Interval | None
    normalised_entropy: float
    against: Metrics | None = None
    auc_change: Interval | None = None
    log_loss_change: Interval | None = None
    segments: tuple[SegmentScore, ...] = ()
    notes: tuple[Note, ...] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; NaN as None."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def evaluate_scores(
    config: GivenScoresConfig, label: ColumnConfig | None = None, source: SourceConfig | None = None
) -> ScoreReport:
    """The report on scores in a table.

    Args:
        label: the column of clicks and how it is read; by default `click`.
        source: how the table is written, without its path; found by default.

    Raises:
        DataError, ConfigError: a table, column or cell cannot be read, or scores are no probabilities.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "scores.csv"
    >>> _ = path.write_text("click,p\\n0,0.1\\n0,0.3\\n1,0.2\\n1,0.8\\n")
    >>> round(evaluate_scores(GivenScoresConfig(path=str(path), score="p")).metrics.auc, 2)
    0.75
    """
    label = label or ColumnConfig(name="click", role="label")
    source = source or SourceConfig(paths=(config.path,))
    other_file = config.against if Path(config.against).is_file() else ""
    columns = [config.score, *config.segments, *([config.key] if config.key else [])]
    own_other = [config.against] if config.against and not other_file else []
    labels = LabelEncoder(label, config.weight or None, source.missing_words)
    table = _columns(source.replace(paths=(config.path,)), [*labels.columns, *columns, *own_other])
    encoded = labels.encode({name: table[name] for name in labels.columns}, 0)
    kept = np.ones(len(table), np.bool_) if encoded.kept is None else encoded.kept
    notes = _left_out("an empty label", int((~kept).sum()))
    scores = {"scores": _numbers(table[config.score], config.score)}
    if own_other:
        scores["others"] = _numbers(table[config.against], config.against)
    elif config.against and not other_file:
        raise ConfigError(f"--against {config.against!r} is neither a column nor a file")
    elif other_file:
        scores["others"], notes_of_join = _joined(config, source, table)
        notes += notes_of_join
    table = table.filter(pl.Series(kept))
    scores = {name: own[kept] for name, own in scores.items()}
    there = np.all([~np.isnan(own) for own in scores.values()], axis=0)
    notes += _left_out("no score", int((~there).sum()))
    if not there.any():
        raise DataError(
            f"no row of {Path(config.path).name} has a label and a score; check the columns {label.name}, {config.score}"
        )
    targets = _targets(encoded.labels[there], None if encoded.weights is None else encoded.weights[there])
    logits = {}
    for name, own in scores.items():
        logits[name], found = _logits(own[there], config, name)
        notes += found
    return _report(targets, logits, table.filter(pl.Series(there)), config, tuple(notes))


def _report(
    targets: NDArray[np.float32], logits: Mapping[str, NDArray[np.float64]], table: pl.DataFrame, config: GivenScoresConfig,
    notes: tuple[Note, ...],
) -> ScoreReport:  # fmt: skip
    own, other = logits["scores"], logits.get("others")
    metrics = metrics_of(targets, own)  # type: ignore[arg-type]  # in double precision
    both = 0 < metrics.num_clicks < metrics.num_rows
    return ScoreReport(
        metrics=metrics,
        auc=auc_interval(targets, own) if both else None,
        normalised_entropy=metrics.log_loss / _entropy(targets) if both else math.nan,
        against=None if other is None else metrics_of(targets, other),  # type: ignore[arg-type]
        auc_change=auc_difference(targets, own, other) if other is not None and both else None,
        log_loss_change=log_loss_difference(targets, own, other) if other is not None else None,
        segments=tuple(
            segment for column in config.segments for segment in _segments(targets, own, other, table[column])
        ),
        notes=notes,
    )  # fmt: skip


def _segments(
    targets: NDArray[np.float32], own: NDArray[np.float64], other: NDArray[np.float64] | None, cells: pl.Series
) -> list[SegmentScore]:
    found = []
    counted = cells.fill_null("").value_counts(sort=True)
    for value in counted[cells.name].head(SEGMENTS).to_list():
        rows = np.flatnonzero((cells.fill_null("") == value).to_numpy())
        metrics = metrics_of(targets[rows], own[rows])  # type: ignore[arg-type]
        if has_enough_clicks(metrics.num_rows, metrics.num_clicks):
            change = None if other is None else auc_difference(targets[rows], own[rows], other[rows])
            found.append(SegmentScore(cells.name, value or "missing", metrics, change))
    return found


def _columns(source: SourceConfig, names: list[str]) -> pl.DataFrame:
    """Columns of a table as texts."""
    table = open_table(source)
    if absent := [name for name in dict.fromkeys(names) if name not in table.column_names]:
        shown = ", ".join(table.column_names[:12])
        raise DataError(
            f"{table.name} has no column {', '.join(absent)}; its columns are {shown}; name them by --label and --score"
        )
    blocks = list(table.blocks(list(dict.fromkeys(names))))
    if not blocks:
        raise DataError(f"{table.name} has no rows; give a table with scores")
    return pl.concat(blocks)


def _joined(config: GivenScoresConfig, source: SourceConfig, table: pl.DataFrame) -> tuple[NDArray[np.float64], list[Note]]:
    """The other file's scores in the order of the table, NaN where it has none."""
    name = Path(config.against).name
    names = [config.score, *([config.key] if config.key else [])]
    other = _columns(source.replace(paths=(config.against,)), names)
    scores = _numbers(other[config.score], config.score)
    if not config.key:
        if len(other) != len(table):
            raise DataError(
                f"{name} has {len(other):,} rows and {Path(config.path).name} {len(table):,}: give --key COLUMN, "
                "which names a row in both"
            )
        return scores, []
    if other[config.key].n_unique() < len(other):
        raise DataError(f"{config.key} names several rows of {name}; choose a column whose cells differ in every row")
    found = table.select(config.key).join(
        pl.DataFrame({config.key: other[config.key], "_score": scores}), on=config.key, how="left", maintain_order="left"
    )
    matched = found["_score"].is_not_null().sum()
    unused = len(other) - matched
    text = f"{unused:,} rows of {name} have a {config.key} that no row of {Path(config.path).name} has"
    notes = [Note("unmatched rows", config.key, text, "warning")] if unused > 0 else []
    return found["_score"].fill_null(math.nan).to_numpy(), notes


def _numbers(texts: pl.Series, name: str) -> NDArray[np.float64]:
    formats = find_number_formats(texts)
    rules = CellRules(number_format=formats[0]) if formats else CellRules()
    numbers, unreadable = read_numbers(texts, rules)
    if unreadable:
        bad = texts.filter(pl.Series(np.isnan(numbers)) & texts.is_not_null()).head(1).to_list()
        raise DataError(
            f"column {name} has {unreadable:,} cells that are no numbers, such as {bad[0]!r}; choose the column of scores"
        )
    return numbers


def _logits(scores: NDArray[np.float64], config: GivenScoresConfig, name: str) -> tuple[NDArray[np.float64], list[Note]]:
    if config.logits:
        return scores, []
    if scores.min() < 0 or scores.max() > 1:
        raise DataError(
            f"the {name} lie between {scores.min():.4g} and {scores.max():.4g}, which are no probabilities; "
            "give --logits if they are logits, or divide them"
        )
    certain = int(((scores < NEAREST) | (scores > 1 - NEAREST)).sum())
    clipped = np.clip(scores, NEAREST, 1 - NEAREST)
    text = f"{certain:,} of the {name} are nearer to 0 or 1 than {NEAREST:g} and count as that near: log loss might be infinite"
    return np.log(clipped) - np.log1p(-clipped), [Note("certain scores", None, text, "warning")] if certain else []


def _targets(labels: NDArray[Any], weights: NDArray[Any] | None) -> NDArray[np.float32]:
    clicks = np.asarray(labels, np.float32)
    if weights is None and np.isin(clicks, (0, 1)).all():
        return clicks
    total = np.float32(1) if weights is None else np.asarray(weights, np.float32)
    return np.stack([total * clicks, total * (1 - clicks)], axis=1)


def _entropy(targets: NDArray[np.float32]) -> float:
    """Log loss of the click-through rate alone."""
    clicks, rows = (targets.sum(), len(targets)) if targets.ndim == 1 else (targets[:, 0].sum(), targets.sum())
    rate = float(clicks) / float(rows)
    return -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))


def _left_out(why: str, rows: int) -> list[Note]:
    return [Note("left out", None, f"{rows:,} rows with {why} are left out", "warning")] if rows else []


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
