"""Detects the dialect of delimited text: delimiter, quotes, escapes, comments, lines above the table, header."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrlab.data.configs import SourceConfig
from ctrlab.data.tables.faults import plural
from ctrlab.data.tables.lines import LineCounts
from ctrlab.errors import DataError

#: Stands for any run of blanks in `SourceConfig.delimiter`.
BLANKS = "blanks"
#: Delimiters that are tried, and how readily: tabs and control characters hardly occur in cells, blanks and colons often.
DELIMITERS = {
    "\t": 3, "\x01": 3, "\x02": 3, "\x1f": 3, "\x1e": 3, "|~|": 3, "^|^": 3, "|^|": 3, "\x01\x01": 3,
    ",": 2, ";": 2, "|": 2, "::": 2, "||": 2, "~~": 2, "^^": 2, "##": 2, "@@": 2, "$$": 2, "%%": 2, ";;": 2,
    "~": 1, "^": 1, "¦": 1, "§": 1, "¬": 1, "þ": 1, "!": 0, ":": 0, "#": 0, "@": 0, "/": 0, BLANKS: 0,
}  # fmt: skip
#: Number of lines that are compared.
SAMPLE_LINES = 300
#: Most lines above the table that are skipped unless the source gives their number.
MAX_LINES_ABOVE = 30
_COMMENTS = ("#", "//", "--", "%")
_WIDE, _MOST = 0.9, 0.98
#: How much a cell of the first line speaks for a header.
_WORD_ABOVE_NUMBERS, _AMONG_VALUES = 2.0, -1.5
_NUMBER = re.compile(r"^\s*[-+]?(\d[\d.,' ]*|\.\d+)(e[-+]?\d+)?\s*%?\s*$", re.IGNORECASE)
_DIGIT = re.compile(r"\d")
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})|\\([tn0\\])")
_MISSING = {"", "na", "n/a", "nan", "null", "none", "\\n", "?", "-", "#n/a", "(null)", "inf", "-inf"}


@dataclass(frozen=True)
class Dialect:
    """How delimited text is written.

    delimiter: one or more characters, or `BLANKS`. quote, escape: one character or None. comment: begins lines that are no rows.
    lines_above: lines before the first row, header included. header: whether the last of them holds the names.
    header_line: that line, if it cannot be a row: an equal line further below is a header again, of files that were joined.
    """

    delimiter: str
    quote: str | None = '"'
    escape: str | None = None
    comment: str | None = None
    lines_above: int = 0
    header: bool = True
    header_line: str | None = None

    @property
    def arguments(self) -> tuple[NDArray[np.uint8], bool, int, int]:
        """Delimiter, blanks, quote and escape as the compiled loops take them."""
        blanks = self.delimiter == BLANKS
        return (
            np.frombuffer((" " if blanks else self.delimiter).encode(), np.uint8),
            blanks,
            ord(self.quote) if self.quote else -1,
            ord(self.escape) if self.escape else -1,
        )


def delimiter_text(given: str) -> str:
    r"""A delimiter as it stands in the file, from a setting with escapes.

    >>> delimiter_text(r"\t"), delimiter_text(r"\x01"), delimiter_text("::")
    ('\t', '\x01', '::')
    """
    names = {"t": "\t", "n": "\n", "0": "\0", "\\": "\\"}
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else names[found[2]], given)


def normalise_text(
    text: bytes, dialect: Dialect, columns: int, *, final: bool = True, write: bool = True
) -> tuple[int, Any, LineCounts]:
    """Normalise rows of `columns` cells (`compiled.text_rows.normalise`).

    Args:
        final: whether the text ends at the end of a row. write: False counts only.

    Returns:
        bytes that were used, the normalised text uint8, and the counts of lines.
    """
    from ctrlab.data.tables.compiled import text_rows as loops

    data = np.frombuffer(text, np.uint8)
    out = np.empty(len(text) + 2 if write else 0, np.uint8)
    counts, firsts = np.zeros(8, np.int64), np.zeros(8, np.int64)
    comment = np.frombuffer((dialect.comment or "").encode(), np.uint8)
    used, written = loops.normalise(data, final, columns, *dialect.arguments, comment, out, write, counts, firsts)
    out.flags.writeable = False  # as the bytes of a plain chunk are: loops are compiled for each kind of array
    kinds = {"blank": loops.BLANK, "comment": loops.COMMENT, "few": loops.FEW, "many": loops.MANY, "stray quote": loops.STRAY}
    found = {kind: int(counts[place]) for kind, place in kinds.items() if counts[place]}
    return used, out[:written], LineCounts(
        lines=int(counts[loops.LINES]),
        rows=int(counts[loops.ROWS]),
        row_lines=int(counts[loops.ROWS] + counts[loops.JOINED]),
        counts=found,
        first={kind: int(firsts[kinds[kind]]) for kind in ("few", "many", "stray quote") if kind in found},
        cells={kind: int(firsts[kinds[kind] - loops.FEW]) for kind in ("few", "many") if kind in found},
    )  # fmt: skip


@dataclass
class _Trial:
    """The sample divided by one dialect. columns: usual number of cells. good: share of rows with that number."""

    dialect: Dialect
    cells: NDArray[np.int64]
    odd: int
    quoted: int
    columns: int = 0
    good: float = 0.0
    stray: int = 0

    @classmethod
    def of(cls, sample: bytes, dialect: Dialect) -> "_Trial":
        from ctrlab.data.tables.compiled import text_rows as loops

        cells, odd, quoted = (np.zeros(SAMPLE_LINES, np.int64) for _ in range(3))
        lines = loops.count_cells(np.frombuffer(sample, np.uint8), *dialect.arguments, cells, odd, quoted)
        trial = cls(dialect, cells[:lines], int(odd.sum()), int(quoted.sum()))
        regular = Counter(cells[:lines][(cells[:lines] > 0) & (odd[:lines] == 0)].tolist()) or Counter(cells[:lines].tolist())
        if regular:
            # Of two numbers that are equally common, the larger: a title or a note is narrower than the table.
            trial.columns = max(regular, key=lambda number: (regular[number], number))
            counts = normalise_text(sample, dialect, max(1, trial.columns), write=False)[2]
            trial.good = counts.rows / max(1, counts.rows + counts.left_out)
            trial.stray = counts.counts.get("stray quote", 0)
        return trial

    @property
    def level(self) -> int:
        return int(self.good >= _WIDE) + int(self.good >= _MOST)


def find_dialect(name: str, head: bytes, source: SourceConfig, *, whole: bool) -> tuple[Dialect, list[str]]:
    """The dialect of a text, and the cells of its header line, or of its first row if it has no header.

    Args:
        name: of the file, for errors. head: whole lines of UTF-8 text. whole: whether they are the whole file.

    Raises:
        DataError: no rows, or names that do not fit.
    """
    lines = head.decode("utf-8", "replace").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    skipped, delimiter = source.skip_lines or 0, source.delimiter and delimiter_text(source.delimiter)
    if source.skip_lines is None and (found := re.fullmatch(r"(?i)\"?sep=(.{1,3})\"?", lines[0].strip("\x00"))):
        skipped, delimiter = 1, delimiter or found[1]
    if source.format == "tsv":
        delimiter = delimiter or "\t"
    elif source.format == "csv":
        delimiter = delimiter if delimiter != "\t" or source.delimiter else None
    body = b"\n".join(head.split(b"\n")[skipped : skipped + SAMPLE_LINES + MAX_LINES_ABOVE])
    if not body.strip():
        raise DataError(
            f"{name} is empty below the {plural(skipped, 'line')} to skip; give a file with rows"
            if skipped
            else f"{name} is empty"
        )
    trial = _choose(body, delimiter, source)
    comment, above = _lines_above(name, trial, lines[skipped:], source)
    dialect = replace(trial.dialect, comment=comment, lines_above=skipped + above)
    rest = [line for line in lines[skipped + above :] if line.strip() and not (comment and line.startswith(comment))]
    if not rest:
        raise DataError(f"{name} holds comments only; give a file with rows")
    first, below = _cells_of(rest[0], dialect), [_cells_of(line, dialect) for line in rest[1:SAMPLE_LINES]]
    if dialect.quote and any("\n" in cell for cell in first):
        raise DataError(f"{name}: a quote in the first line is not closed on that line; correct the first line")
    below = [cells for cells in below if len(cells) == trial.columns]
    header = _header(first, below, source, trial.columns)
    if len(first) > 1 and dialect.quote and rest[0].count(dialect.quote) % 2 and _opens(rest[0], dialect):
        raise DataError(f"{name}: a quote in the first line is not closed on that line; correct the first line")
    if header:
        if whole and not below and not rest[1:]:
            raise DataError(f"{name} has column names and no rows; give a file with data, or say that it has no header")
        first = _whole_header(name, first, below, trial.columns)
        above += next(i for i, line in enumerate(lines[skipped + above :], 1) if line is rest[0])
        dialect = replace(dialect, lines_above=skipped + above)
        if not comment and first[0].startswith("#") and len(first) > 1:
            first = [first[0].lstrip("#").strip(), *first[1:]]
    can_be_a_row = len(first) < 2 or all(not cell.strip() or _is_number(cell) for cell in first)
    return replace(dialect, header=header, header_line=None if can_be_a_row or not header else rest[0]), first


def _opens(line: str, dialect: Dialect) -> bool:
    """Whether a quoted cell begins in a line and does not end in it."""
    from ctrlab.data.tables.compiled import text_rows as loops

    text = np.frombuffer(line.encode(), np.uint8)
    return (
        int(loops.scan_row(text, 0, len(text), loops.STOP, True, *dialect.arguments, text[:0].copy(), 0, False)[0]) == loops.OPEN
    )


def _choose(body: bytes, delimiter: str | None, source: SourceConfig) -> _Trial:
    """The dialect that divides the sample into rows of equally many cells."""
    quotes = _quotes(body, source, delimiter)
    if delimiter is None:
        candidates = [one for one in DELIMITERS if one == BLANKS or one.encode() in body]
        trials = [max((_Trial.of(body, Dialect(one, quote)) for quote in quotes), key=_rank) for one in candidates]
        best = max(trials, key=_rank)
        delimiter = best.dialect.delimiter if best.columns > 1 and best.good >= 0.5 else ","
        delimiter = _not_decimal_comma(delimiter, trials)
        delimiter = _whole_delimiter(delimiter, trials)
    quotes = _quotes(body, source, delimiter)
    trials = [_Trial.of(body, Dialect(delimiter, quote)) for quote in quotes]
    best = max(trials, key=_quote_rank)
    if b"\\" in body:
        escaped = _Trial.of(body, replace(best.dialect, escape="\\"))
        if (round(escaped.good, 3), -escaped.odd) > (round(best.good, 3), -best.odd):
            best = escaped
    return best


def _quotes(body: bytes, source: SourceConfig, delimiter: str | None) -> list[str | None]:
    if source.quote is not None:
        return [None if source.quote == "none" else source.quote]
    if b'"' not in body:
        # Without quotes in the sample, those further below are quotes in a CSV file, and text between tabs.
        first: str | None = None if delimiter and DELIMITERS.get(delimiter, 0) == 3 else '"'
        return [first, "'"] if b"'" in body else [first]
    return ['"', None, "'"] if b"'" in body else ['"', None]


def _rank(trial: _Trial) -> tuple[Any, ...]:
    readiness = DELIMITERS.get(trial.dialect.delimiter, 1)
    first = next((int(number) for number in trial.cells if number), 0)
    usable = trial.columns > 1
    # Colons and blanks count only where nothing else divides the lines evenly.
    return (
        usable and trial.level > 0 and readiness > 0, usable and trial.level > 0, first == trial.columns,
        readiness if readiness == 3 else 1 if readiness else 0, trial.level, trial.columns, readiness, round(trial.good, 3),
        *_quote_rank(trial),
    )  # fmt: skip


def _quote_rank(trial: _Trial) -> tuple[Any, ...]:
    """Among dialects with one delimiter: more whole rows, then quotes that enclose cells and are not odd."""
    enclosing = trial.quoted - 2 * (trial.odd + trial.stray)
    quote = trial.dialect.quote
    score = {None: 0, '"': enclosing, "'": enclosing - 1 if trial.odd + trial.stray == 0 else -1}[quote]
    if quote == '"' and trial.quoted == trial.odd == trial.stray == 0:
        score = 1
    return (round(trial.good, 2), score)


def _not_decimal_comma(delimiter: str, trials: list[_Trial]) -> str:
    """A semicolon in place of a comma, if the semicolon divides lines evenly into cells with commas only inside numbers."""
    other = next((trial for trial in trials if trial.dialect.delimiter == ";"), None)
    if delimiter != "," or other is None or other.level == 0 or other.columns < 2:
        return delimiter
    comma = next(trial for trial in trials if trial.dialect.delimiter == ",")
    first = [next((int(number) for number in trial.cells if number), 0) for trial in (comma, other)]
    return ";" if first[1] == other.columns and first[0] != comma.columns else delimiter


def _whole_delimiter(delimiter: str, trials: list[_Trial]) -> str:
    """A longer delimiter that contains this one, if the longer one divides the lines evenly and this one only as part of it."""
    mine = next((trial for trial in trials if trial.dialect.delimiter == delimiter), None)
    for trial in trials:
        longer = trial.dialect.delimiter
        if mine and longer != BLANKS and len(longer) > len(delimiter) and delimiter in longer and trial.columns > 1:
            count = longer.count(delimiter)
            if trial.level >= mine.level and trial.level and mine.columns - 1 == count * (trial.columns - 1):
                return longer
    return delimiter


def _lines_above(name: str, trial: _Trial, lines: list[str], source: SourceConfig) -> tuple[str | None, int]:
    """The comment mark, and the number of lines above the header or first row: comments, titles, blank lines."""
    comment = source.comment
    if source.skip_lines is not None:
        return comment, 0
    cells, columns = trial.cells, trial.columns
    place = 0
    while place < len(cells) and place < MAX_LINES_ABOVE:
        line = lines[place]
        is_comment = bool(comment and line.startswith(comment))
        if not is_comment and cells[place] == columns and not _is_title(trial, lines, place):
            break
        if not is_comment and cells[place] and _is_short_header(trial, lines, place):
            break
        if not is_comment and cells[place] > columns and not line.startswith(_COMMENTS):
            raise DataError(
                f"{name}: line {place + 1} has {plural(int(cells[place]), 'cell')} and most lines have {columns}; set the "
                "number of lines to skip if the table begins below it, or the delimiter, or mend that line"
            )
        place += 1
    else:
        place = 0
    filled = [line for line in lines[:place] if line.strip()]
    if comment is None and filled:
        comment = next((mark for mark in _COMMENTS if all(line.startswith(mark) for line in filled)), None)
    return comment, place


def _is_title(trial: _Trial, lines: list[str], place: int) -> bool:
    """Whether a line as wide as the table holds a title in one cell and nothing else, above a line with several."""
    if trial.columns < 3 or place + 1 >= len(trial.cells):
        return False
    filled = sum(bool(cell.strip()) for cell in _cells_of(lines[place], trial.dialect))
    later = next((line for line in lines[place + 1 : place + 5] if line.strip()), "")
    return filled <= 1 and place < 5 and sum(bool(cell.strip()) for cell in _cells_of(later, trial.dialect)) >= trial.columns - 1


def _is_short_header(trial: _Trial, lines: list[str], place: int) -> bool:
    """Whether a line holds the names of all columns but one: of the row names, or after a delimiter at each row's end."""
    if trial.cells[place] != trial.columns - 1 or trial.columns < 3 or trial.good < _WIDE:
        return False
    first = _cells_of(lines[place], trial.dialect)
    later = [_cells_of(line, trial.dialect) for line in lines[place + 1 : place + 30] if line.strip()]
    later = [cells for cells in later if len(cells) == trial.columns]
    ends_empty = bool(later) and all(not cells[-1].strip() for cells in later)
    below = [cells[:-1] if ends_empty else cells[1:] for cells in later]
    return all(word.strip() for word in first) and bool(below) and looks_like_header(first, below)


def _cells_of(line: str, dialect: Dialect) -> list[str]:
    """The cells of one line."""
    from ctrlab.data.tables.compiled import text_rows as loops

    text = np.frombuffer(line.encode(), np.uint8)
    out = np.empty(len(text) + 2, np.uint8)
    _, _, at, _, _ = loops.scan_row(text, 0, len(text), loops.AS_TEXT, True, *dialect.arguments, out, 0, True)
    return [cell.decode("utf-8", "replace") for cell in out[: at - 1].tobytes().split(bytes([loops.CELL_END]))]


def _header(first: list[str], below: list[list[str]], source: SourceConfig, columns: int) -> bool:
    if source.header is not None:
        return source.header
    if source.column_names and first == list(source.column_names):
        return True
    if len(first) == columns - 1 and below:
        return True
    if source.column_names and not below:
        return False
    return looks_like_header(first, below)


def looks_like_header(first: list[str], below: list[list[str]]) -> bool:
    """Whether a first line holds column names rather than a row, compared with the rows below it.

    >>> looks_like_header(["click", "2019", "2020"], [["0", "12", "1"], ["1", "7", "0"]])
    True
    >>> looks_like_header(["0", "12", "1"], [["1", "7", "0"], ["1", "9", "0"]])
    False
    """
    words = [cell.strip() for cell in first]
    named = [word for word in words if word]
    if not named:
        return False
    repeated = len(set(named)) < len(named)
    if not below:
        if repeated:
            return False
        inner = words[1:] if len(words) > 1 and not words[0] else words
        inner = inner[:-1] if len(inner) > 1 and not inner[-1] else inner
        return all(inner) and not any(_is_number(word) for word in inner)
    evidence = [_evidence(word, [cells[i].strip() for cells in below if i < len(cells)]) for i, word in enumerate(words)]
    # A word above numbers decides, unless as many words stand among the values below them.
    if (above_numbers := evidence.count(_WORD_ABOVE_NUMBERS)) and above_numbers >= evidence.count(_AMONG_VALUES):
        return True
    if repeated:
        return False
    score = sum(evidence)
    numbers = [word for word in words if word.isdigit()]
    if len(numbers) == len(words) >= 3 and [int(word) for word in numbers] in (
        list(range(len(words))), list(range(1, len(words) + 1))
    ):  # fmt: skip
        score += 2
    if score == 0:
        inner = words[1:] if len(words) > 1 and not words[0] else words
        return all(inner) and not any(_is_number(word) for word in inner)
    return score > 0


def _evidence(word: str, cells: list[str]) -> float:
    """How much one cell speaks for a header (above 0) or for a row (below 0)."""
    filled = [cell for cell in cells if cell.lower() not in _MISSING]
    if not filled or (word.lower() in _MISSING and word):
        return 0.0
    if not word:
        return 0.0 if len(cells) < 5 else -0.5
    share = sum(map(_is_number, filled)) / len(filled)
    if not _is_number(word):
        if share > 0.9:
            return _WORD_ABOVE_NUMBERS
        if word in filled:
            return _AMONG_VALUES
        if len(filled) >= 5 and not _DIGIT.search(word) and all(map(_DIGIT.search, filled)):
            return _WORD_ABOVE_NUMBERS  # codes and dates
        lengths = {len(cell) for cell in filled}
        return 0.5 if len(filled) >= 5 and len(lengths) == 1 and len(word) not in lengths else 0.0
    if share > 0.1:
        return -1.0 if word in filled or share <= 0.9 or not word.isdigit() else -0.5
    return 1.0 if len(filled) >= 5 else 0.0


def _whole_header(name: str, first: list[str], below: list[list[str]], columns: int) -> list[str]:
    """The header with a name for every column of the rows."""
    if len(first) == columns or not below:
        return first
    if len(first) == columns - 1:
        ends_empty = all(not cells[-1].strip() for cells in below)
        return [*first, ""] if ends_empty else ["", *first]
    raise DataError(
        f"{name}: the header has {plural(len(first), 'cell')} and the rows have {columns}; set the number of lines to skip, the "
        "delimiter, or that there is no header"
    )


def _is_number(text: str) -> bool:
    return bool(_NUMBER.match(text))
