"""Where two models differ on the same rows: by segment, and by row."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.evaluation.delong import LEVEL, Interval, auc_difference, log_loss_difference
from ctrlab.evaluation.evidence import has_enough_clicks
from ctrlab.evaluation.metrics import auc, is_weighted

#: The most frequent values of a field that are segments.
VALUES_OF_A_FIELD = 8
#: Segments of the score, each with a tenth of the rows.
DECILES = 10
#: Edges of the classes of an id's count in training: 0, 1 to 9, 10 to 99, 100 to 999, 1000 and more.
FREQUENCIES = (1, 10, 100, 1000)


@dataclass(frozen=True)
class Segment:
    """Rows with something in common: the value of a field, the tenth of a score, the class of an id's frequency.

    kind: "value", "frequency" or "score". field: name of the field, "" of scores. value: the id, or the number of the class.
    """

    kind: str
    field: str
    value: int


@dataclass(frozen=True)
class SegmentChange:
    """What a model changes against a reference within a segment.

    rows, clicks: by weight. auc, auc_reference: within the segment. auc_change, log_loss_change: with intervals that hold for all
    segments together (Bonferroni). share: of the whole rise in log loss that is within the segment; NaN where there is none.
    """

    segment: Segment
    rows: float
    clicks: float
    auc: float
    auc_reference: float
    auc_change: Interval
    log_loss_change: Interval
    share: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; NaN as None."""
        return asdict(self) | {"share": None if self.share != self.share else self.share}


def segments_of(
    ids: NDArray[np.integer[Any]], names: Iterable[str], counts: Callable[[int], NDArray[np.int64]], reference: NDArray[Any]
) -> Iterator[tuple[Segment, NDArray[np.intp]]]:
    """(segment, its rows) of all segments: tenths of the reference's score, then each field's frequent values and frequencies.

    Args:
        ids: (n, F) categorical fields. names: of the fields.
        counts: number of a field -> (field_dim,) how often training had each id.
        reference: (n,) scores of the reference.
    """
    order = np.argsort(reference, kind="stable")
    for tenth, rows in enumerate(np.array_split(order, DECILES)):
        yield Segment("score", "", tenth), np.sort(rows)
    for number, name in enumerate(names):
        column = np.asarray(ids[:, number])
        found = np.bincount(column)
        for value in np.argsort(-found, kind="stable")[:VALUES_OF_A_FIELD]:
            yield Segment("value", name, int(value)), np.flatnonzero(column == value)
        classes = np.searchsorted(FREQUENCIES, counts(number)[column], side="right")
        for value in np.unique(classes) if len(np.unique(classes)) > 1 else ():
            yield Segment("frequency", name, int(value)), np.flatnonzero(classes == value)


def segment_changes(
    targets: NDArray[np.float32],
    logits: NDArray[Any],
    reference: NDArray[Any],
    segments: Iterable[tuple[Segment, NDArray[np.intp]]],
    on_progress: Callable[[float], None] = lambda done: None,
) -> tuple[list[SegmentChange], int]:
    """Changes of the segments with enough clicks and non-clicks, the largest loss of log loss first; how many had too few.

    Args:
        targets, logits, reference: of all rows; targets as in `metrics`.
    """
    found = [(segment, rows) for segment, rows in segments if len(rows)]
    kept = [(segment, rows) for segment, rows in found if has_enough_clicks(*_weights(targets[rows]))]
    level = 1 - (1 - LEVEL) / max(1, len(kept))
    total = log_loss_difference(targets, logits, reference).estimate * _weights(targets)[0] if len(targets) else 0.0
    changes = []
    for number, (segment, rows) in enumerate(kept):
        on_progress(number / len(kept))
        changes.append(_change(segment, targets[rows], logits[rows], reference[rows], level, total))
    return sorted(changes, key=lambda change: -change.log_loss_change.low), len(found) - len(kept)


def _change(
    segment: Segment, targets: NDArray[np.float32], logits: NDArray[Any], reference: NDArray[Any], level: float, total: float
) -> SegmentChange:
    rows, clicks = _weights(targets)
    loss = log_loss_difference(targets, logits, reference, level)
    return SegmentChange(
        segment=segment, rows=rows, clicks=clicks, auc=auc(targets, logits), auc_reference=auc(targets, reference),
        auc_change=auc_difference(targets, logits, reference, level), log_loss_change=loss,
        share=loss.estimate * rows / total if total > 0 else float("nan"),
    )  # fmt: skip


def moved_rows(logits: NDArray[Any], reference: NDArray[Any], number: int = 20) -> NDArray[np.intp]:
    """Indices of the rows whose probabilities differ most, the largest difference first.

    >>> moved_rows(np.array([0.0, 3.0, 0.1]), np.array([0.0, -3.0, 0.0]), 2).tolist()
    [1, 2]
    """
    moved = np.abs(probabilities(logits) - probabilities(reference))
    first = np.argpartition(-moved, min(number, len(moved)) - 1)[:number] if len(moved) else np.empty(0, np.intp)
    order: NDArray[np.intp] = first[np.argsort(-moved[first], kind="stable")]
    return order


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) probabilities of logits.

    >>> probabilities(np.array([0.0])).tolist()
    [0.5]
    """
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def _weights(targets: NDArray[np.float32]) -> tuple[float, float]:
    """(rows, clicks) by weight."""
    if is_weighted(targets):
        return float(targets.sum()), float(targets[:, 0].sum())
    return float(len(targets)), float(targets.sum())


def describe_frequency(number: int) -> str:
    """The class of an id's count in training, in words.

    >>> describe_frequency(0), describe_frequency(2), describe_frequency(4)
    ('not in training', 'seen 10 to 99 times', 'seen 1000 times or more')
    """
    if number == 0:
        return "not in training"
    if number == len(FREQUENCIES):
        return f"seen {FREQUENCIES[-1]} times or more"
    return f"seen {FREQUENCIES[number - 1]} to {FREQUENCIES[number] - 1} times"


def segment_name(segment: Segment, texts: Mapping[tuple[str, int], str]) -> str:
    """A segment in words; `texts` has the values of fields by (field, id).

    >>> segment_name(Segment("value", "site", 5), {("site", 5): "news"}), segment_name(Segment("score", "", 9), {})
    ('site is news', 'highest tenth of scores')
    """
    if segment.kind == "score":
        ends = {0: "lowest", DECILES - 1: "highest"}
        return f"{ends.get(segment.value, f'{segment.value + 1}th')} tenth of scores"
    if segment.kind == "frequency":
        return f"{segment.field} {describe_frequency(segment.value)}"
    return f"{segment.field} is {texts.get((segment.field, segment.value), segment.value)}"
