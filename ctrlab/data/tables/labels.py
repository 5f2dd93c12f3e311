"""Labels: reads the label column as clicks, or as shares of clicks, and the weight of each row."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ctrlab.data.configs import ColumnConfig, DatasetConfig
from ctrlab.data.tables.cells import PLAIN_CELLS, CellRules
from ctrlab.data.tables.notes import Note
from ctrlab.data.tables.numbers import read_numbers, read_shares
from ctrlab.errors import DataError

_WORDS = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0}
#: The settings of `ColumnConfig` that say how a label is read.
LABEL_SETTINGS = ("positive", "threshold", "empty_label", "soft", "label_total")
_ALLOWED = ({0.0, 1.0}, {-1.0, 1.0})
ALLOWED_TEXT = "0/1, -1/1, true/false or yes/no"
#: The ways to read another label, for sentences that refuse one.
WAYS_TEXT = "say which values are clicks (positive), from which number on (threshold), or that it is a share of clicks (soft)"


def label_value(text: str) -> float | None:
    """The number that a label text means; None if it is neither a number nor yes/no/true/false.

    >>> label_value("yes"), label_value("-1"), label_value("maybe")
    (1.0, -1.0, None)
    """
    word = text.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        return float(word)
    except ValueError:
        return None


def is_label(values: Iterable[str]) -> bool:
    """Whether the texts are exactly one pair of label values."""
    return {label_value(value) for value in values} in _ALLOWED


def is_empty(text: str | None, rules: CellRules = PLAIN_CELLS) -> bool:
    """Whether a cell holds nothing, or a word that means so.

    >>> is_empty(None), is_empty(" NA "), is_empty("0")
    (True, True, False)
    """
    return text is None or text.strip().lower() in rules.words


@dataclass(frozen=True)
class EncodedLabels:
    """Labels of a block of rows.

    labels: (n,) uint8, 1 = click; float32 shares of clicks where the label is soft. Only of the rows that are kept.
    weights: float32 (n,), impressions of each kept row; None if every row counts once.
    kept: bool (rows of the block,); None if all rows are kept.
    """

    labels: "NDArray[np.uint8] | NDArray[np.float32]"
    weights: NDArray[np.float32] | None = None
    kept: NDArray[np.bool_] | None = None


def _read(texts: pl.Series, rules: CellRules) -> NDArray[np.float64]:
    return read_numbers(texts, rules)[0]


class LabelEncoder:
    """Reads the label block by block; keeps the distinct texts, because a third value may occur late in the file.

    Args:
        column: the label's name and settings. weight: the column of weights; None if every row counts once.
        missing_words: words that mean an empty cell besides the usual ones.
    """

    def __init__(self, column: ColumnConfig, weight: str | None = None, missing_words: tuple[str, ...] = ()) -> None:
        self.column, self.weight = column, weight
        self._rules = CellRules.of(column, missing_words)
        self._texts: dict[str, float | None] = {}

    @property
    def columns(self) -> list[str]:
        """Names of the columns that it reads."""
        return [self.column.name, *([self.weight] if self.weight else [])]

    @property
    def seen(self) -> list[str]:
        """The distinct texts so far, of a label without settings."""
        return list(self._texts)

    def restore(self, texts: Iterable[str]) -> None:
        """Continue with the `seen` texts of an interrupted pass."""
        self._texts = {text: label_value(text) for text in texts}

    def encode(self, texts: Mapping[str, pl.Series], first_row: int) -> EncodedLabels:
        """The labels of a block.

        Args:
            texts: the columns of `columns`. first_row: number of rows before the block, for messages.

        Raises:
            DataError: an empty cell that is not allowed, or cells that the settings do not read.
        """
        labels = texts[self.column.name]
        if self.column.is_soft:
            clicks = self._numbers(labels, first_row, self.column.empty_label != "refuse")
            if self.column.empty_label == "negative":
                clicks = np.nan_to_num(clicks)
        else:
            clicks = self._clicks(labels, first_row)
        weights = self._numbers(texts[self.weight], first_row, self.column.empty_label != "refuse") if self.weight else None
        kept = ~np.isnan(clicks) & (np.ones(len(clicks), np.bool_) if weights is None else weights > 0)
        if self.column.is_soft:
            clicks = self._shares(clicks, weights, kept, first_row)
        return EncodedLabels(
            clicks[kept].astype(np.float32) if self.column.is_soft else clicks[kept].astype(np.uint8),
            None if weights is None else weights[kept].astype(np.float32),
            None if kept.all() else kept,
        )

    def _clicks(self, labels: pl.Series, first_row: int) -> NDArray[np.float64]:
        """1, 0, or nan for a row to drop, float64 (n,)."""
        distinct = labels.unique().to_list()
        empty = [text for text in distinct if is_empty(text, self._rules) and text not in self.column.positive]
        if empty and self.column.empty_label == "refuse":
            row = first_row + int(labels.is_in(empty, nulls_equal=True).arg_max() or 0) + 1
            raise DataError(
                f"label {self.column.name!r} is empty in data row {row}; set empty_label to drop (leaves out such rows) or "
                "negative (they are no clicks), or fill them"
            )
        values = self._values([text for text in distinct if text not in empty])
        values |= dict.fromkeys(empty, float("nan") if self.column.empty_label == "drop" else 0.0)
        return labels.replace_strict(values, return_dtype=pl.Float64).to_numpy()

    def _values(self, texts: list[str]) -> dict[Any, float]:
        """1.0 or 0.0 of each distinct text."""
        if self.column.positive:
            return {text: float(is_positive(text, self.column.positive)) for text in texts}
        if self.column.threshold is not None:
            clicked = self._plain_numbers(texts) >= self.column.threshold
            return dict(zip(texts, clicked.astype(np.float64).tolist(), strict=True))
        self._texts |= {text: label_value(text) for text in texts}
        values = set(self._texts.values())
        if None in values or not any(values <= pair for pair in _ALLOWED):
            raise DataError(self._fault())
        return {text: float(self._texts[text] == 1.0) for text in texts}

    def _plain_numbers(self, texts: list[str]) -> NDArray[np.float64]:
        numbers = read_numbers(pl.Series(texts, dtype=pl.String), self._rules)[0]
        if np.isnan(numbers).any():
            raise DataError(
                f"label {self.column.name!r} holds {texts[int(np.isnan(numbers).argmax())]!r}, which is no number and so has no "
                "threshold; name its click values as positive instead"
            )
        return numbers

    def _numbers(self, texts: pl.Series, first_row: int, empty_allowed: bool) -> NDArray[np.float64]:
        """Numbers float64 (n,), nan where a cell is empty."""
        read = read_shares if self.column.soft and texts.name == self.column.name else _read
        numbers = read(texts, self._rules)
        unreadable = np.isnan(numbers)
        if not unreadable.any():
            return numbers
        if empty_allowed:
            unreadable &= ~np.array([is_empty(text, self._rules) for text in texts.to_list()])
        if unreadable.any():
            at = int(unreadable.argmax())
            raise DataError(
                f"column {texts.name!r} holds {texts[at]!r} in data row {first_row + at + 1}, where a number is expected; "
                "mend that row, or set empty_label of the label to drop if such cells are empty"
            )
        return numbers

    def _shares(
        self, clicks: NDArray[np.float64], weights: NDArray[np.float64] | None, kept: NDArray[np.bool_], first_row: int
    ) -> NDArray[np.float64]:
        total = weights if self.column.label_total is not None and weights is not None else np.ones(len(clicks))
        wrong = kept & ((clicks < 0) | (clicks > total))
        if wrong.any():
            at = int(wrong.argmax())
            most = f"{total[at]:g} {self.column.label_total}" if self.column.label_total else "1"
            raise DataError(
                f"label {self.column.name!r} is {clicks[at]:g} in data row {first_row + at + 1}, outside 0 to {most}; "
                "a soft label is a share of clicks, so choose another reading or mend the file"
            )
        return np.divide(clicks, total, out=np.zeros(len(clicks)), where=kept)

    def _fault(self) -> str:
        # Several spellings of one value count once; a text that is not a number counts as itself.
        spellings = {value if value is not None else text: text for text, value in reversed(self._texts.items())}
        shown = ", ".join(sorted(spellings.values())[:5]) + (", ..." if len(spellings) > 5 else "")
        number = f"{len(spellings)} different values" if len(spellings) > 1 else "the value"
        holds = f"label {self.column.name!r} holds {number} ({shown})"
        return f"{holds} and not {ALLOWED_TEXT}; {WAYS_TEXT}, or choose another column"


def is_positive(text: str, positive: Iterable[str]) -> bool:
    """Whether a cell is one of the `positive` texts, blanks around it aside; numbers are equal in any spelling.

    >>> is_positive("2.0", ("2",)), is_positive(" click", ("click",)), is_positive("no click", ("click",))
    (True, True, False)
    """
    return any(_same(text.strip(), other.strip()) for other in positive)


def _same(text: str, other: str) -> bool:
    try:
        return text == other or float(text) == float(other)
    except ValueError:
        return False


def label_notes(config: DatasetConfig, dropped: int, rows: int) -> tuple[Note, ...]:
    """What an encoding did with the label: how it was read where that is not plain, and how many rows were left out."""
    column, notes = config.label_column, []
    if reading := reading_text(column):
        notes.append(Note("label", column.name, f"label {column.name}: {reading}"))
    if dropped:
        text = f"{dropped:,} of {rows:,} rows were left out, because their label or weight is empty or their weight is 0"
        notes.append(Note("rows", column.name, text, "warning", "set empty_label to negative if an empty label means no click"))
    return tuple(notes)


def label_settings(column: ColumnConfig) -> dict[str, Any]:
    """The settings that read a label, where they differ from their defaults.

    >>> label_settings(ColumnConfig(name="rating", role="label", threshold=4.0))
    {'threshold': 4.0}
    """
    values = {name: getattr(column, name) for name in LABEL_SETTINGS}
    return {name: value for name, value in values.items() if value != ColumnConfig.__dataclass_fields__[name].default}


def reading_text(column: ColumnConfig) -> str:
    """How a label's settings read its cells; "" for 0/1, -1/1, true/false and yes/no.

    >>> reading_text(ColumnConfig(name="rating", role="label", threshold=4.0, empty_label="drop"))
    'a number of 4 or more is a click, rows with an empty label are left out'
    """
    parts = []
    if column.positive:
        parts.append(f"{' or '.join(map(repr, column.positive))} is a click, any other value is none")
    if column.threshold is not None:
        parts.append(f"a number of {column.threshold:g} or more is a click")
    if column.soft:
        parts.append("each cell is a share of clicks")
    if column.label_total is not None:
        parts.append(f"clicks of {column.label_total} impressions, by which the row is weighed")
    if column.empty_label != "refuse":
        drops = column.empty_label == "drop"
        parts.append("rows with an empty label are left out" if drops else "an empty label is no click")
    return ", ".join(parts)
