"""Parses timestamps in the notations that logs use, and finds the notation of a column.

Named formats: `CALENDARS` (notations with separators, `iso` among them), `DIGITS` (calendar readings without separators) and
`EPOCHS` (numbers of seconds, milliseconds, microseconds or nanoseconds since 1970). Any other format is a strptime pattern.
"""

import re
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

_SEPARATOR, _NAME = r"[-/. ]", r"\p{L}{3,10}\.?"
_CLOCK = r"(?:(?:T|,? +|:)(?<H>\d{1,2})(?::(?<M>\d{2}))?(?::(?<S>\d{2})(?:[.,](?<f>\d+))?)?(?: ?(?<ap>[AaPp])\.?[Mm]\.?)?)?"
_OFFSET = r"(?: ?(?:Z|[A-Za-z]{3,4}|(?<sign>[+-])(?<oh>\d{2}):?(?<om>\d{2})?))?(?:\[[A-Za-z_/+-]+\])?"
_WEEKDAY = rf"(?:{_NAME},? +)?"
#: Regular expression of each notation with separators; a clock and an offset from UTC may follow the date.
_DATES = {
    "iso": rf"(?<y>\d{{4}})(?:{_SEPARATOR}|年|년) ?(?<m>\d{{1,2}}|{_NAME})(?:{_SEPARATOR}|月|월) ?(?<d>\d{{1,2}})[日일]?",
    "dd/mm/yyyy": rf"(?<d>\d{{1,2}}){_SEPARATOR}(?<m>\d{{1,2}}){_SEPARATOR}(?<y>\d{{4}}|\d{{2}})",
    "mm/dd/yyyy": rf"(?<m>\d{{1,2}}){_SEPARATOR}(?<d>\d{{1,2}}){_SEPARATOR}(?<y>\d{{4}}|\d{{2}})",
    "dd/month/yyyy": rf"(?<d>\d{{1,2}})\.?{_SEPARATOR}(?:de )?(?<m>{_NAME})(?: de|[-/., ])+ ?(?<y>\d{{4}}|\d{{2}})",
    "month dd yyyy": rf"(?<m>{_NAME})\.? +(?<d>\d{{1,2}})(?:st|nd|rd|th)?,? +(?<y>\d{{4}})",
}
CALENDARS = {name: rf"^\[?{_WEEKDAY}{date}{_CLOCK}{_OFFSET}\]?$" for name, date in _DATES.items()} | {
    "ctime": rf"^{_WEEKDAY}(?<m>[A-Za-z]{{3}}) +(?<d>\d{{1,2}}){_CLOCK}{_OFFSET} (?<y>\d{{4}})$"
}
#: Digits of each calendar reading without separators: of the year, then two each of month, day, hour, minute, second.
DIGITS = {
    "yyyymmdd": (4, 8),
    "yyyymmddhh": (4, 10),
    "yyyymmddhhmm": (4, 12),
    "yyyymmddhhmmss": (4, 14),
    "yymmdd": (2, 6),
    "yymmddhh": (2, 8),
    "yymmddhhmm": (2, 10),
    "yymmddhhmmss": (2, 12),
}
#: Microseconds of one unit, as a fraction: numerator, denominator.
EPOCHS = {"epoch_s": (1_000_000, 1), "epoch_ms": (1_000, 1), "epoch_us": (1, 1), "epoch_ns": (1, 1_000)}
_EPOCH_DIGITS = {"epoch_s": "9,10", "epoch_ms": "12,13", "epoch_us": "15,16", "epoch_ns": "18,19"}
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
#: First letters of months in German, French, Spanish, Italian, Portuguese and Dutch, where they differ from the English.
_FOREIGN_MONTHS = (
    ("jän", "ene", "gen"), ("fév", "fev"), ("mär", "mrz", "maa", "mrt"), ("abr", "avr"), ("mai", "mag", "mei"), ("giu", "juin"),
    ("lug", "juil"), ("aoû", "aou", "ago"), ("set",), ("okt", "oct", "ott", "out"), (), ("dez", "déc", "dic"),
)  # fmt: skip
_MONTHS = {name: month for month, name in enumerate(_MONTH_NAMES, 1)} | {
    name: month for month, names in enumerate(_FOREIGN_MONTHS, 1) for name in names
}
_TIME_NAME = re.compile(r"(?i:time|date|stamp|epoch|hour|day|clock|when|created|updated|(^|_)(ts|dt)($|_)|_at$)|[a-z]At$")
_EARLIEST_YEAR, _LATEST_YEAR = 1995, 2050
_NEARLY_ALL = 0.99
_HEAD_ROWS = 200
_DAY = 86_400_000_000


def parse_timestamps(texts: pl.Series, timestamp_format: str) -> pl.Series:
    """Local wall-clock times as Datetime; null where a cell is empty or unreadable. A UTC offset in the text is dropped.

    Args:
        texts: String series.
        timestamp_format: a name of `CALENDARS`, `DIGITS` or `EPOCHS`, or a strptime pattern.

    >>> parse_timestamps(pl.Series(["14102113"]), "yymmddhh").dt.hour().to_list()
    [13]
    """
    if timestamp_format not in CALENDARS | DIGITS | EPOCHS:
        return _by_pattern(texts, timestamp_format)
    return _series(_parse(texts, timestamp_format).wall, texts.name)


def parse_instants(texts: pl.Series, timestamp_format: str) -> pl.Series:
    """Times in UTC as Datetime: a UTC offset in the text is subtracted, a time without one counts as UTC.

    >>> parse_instants(pl.Series(["2024-03-01T09:00:00+09:00"]), "iso").dt.hour().to_list()
    [0]
    """
    if timestamp_format not in CALENDARS:
        return parse_timestamps(texts, timestamp_format)
    parsed = _parse(texts, timestamp_format)
    return _series(parsed.wall - parsed.offset, texts.name)


def find_format(texts: pl.Series, name: str) -> str | None:
    """The likeliest of `find_formats`, or None.

    >>> find_format(pl.Series(["2014-10-21 13:00"]), "hour")
    'iso'
    """
    return next(iter(find_formats(texts, name)), None)


def find_formats(texts: pl.Series, name: str) -> tuple[str, ...]:
    """The named formats in which nearly every cell is a plausible time, the likeliest first.

    Calendar readings come before epochs. Numbers count as epochs, two-digit years as years, only in a column whose name suggests
    a time: ids look the same. Of day first and month first, the one whose times run forward in the rows comes first.

    Args:
        texts: cells in the order of the file; null where missing.
        name: of the column.
    """
    texts = texts.drop_nulls()
    head = texts.head(_HEAD_ROWS)
    candidates = [one for one in _candidates(head, bool(_TIME_NAME.search(name))) if _plausible(head, one)]
    found = [one for one in candidates if len(texts) <= _HEAD_ROWS or _plausible(texts.unique(), one)]
    if {"dd/mm/yyyy", "mm/dd/yyyy"} <= set(found):
        found.sort(key=lambda one: _disorder(texts.head(50 * _HEAD_ROWS), one))
    return tuple(found)


def _candidates(head: pl.Series, named: bool) -> list[str]:
    if not len(head):
        return []
    whole = _whole(head)
    digits = [one for one, (_, length) in DIGITS.items() if _matches(whole, rf"^\d{{{length}}}$")]
    digits += [one for one, _ in ([("yyyymmddhhmmss", 14), ("yyyymmddhhmm", 12)]) if _matches(head, _ISO_BASIC[one])]
    surely = [one for one in digits if one.startswith("yyyy") or one == "yymmddhh"]
    epochs = [one for one in EPOCHS if named and _matches(head, rf"^\d{{{_EPOCH_DIGITS[one]}}}(\.\d*)?$")]
    short = [one for one in digits if named and one not in surely]
    two_digits = not named and _matches(head, r"^\d{1,2}[-/. ]\d{1,2}[-/. ]\d{2}$")
    calendars = [] if two_digits else [one for one, pattern in CALENDARS.items() if _matches(head, pattern)]
    return [*calendars, *surely, *epochs, *short]


def _matches(texts: pl.Series, pattern: str) -> bool:
    return int(texts.str.contains(pattern).sum()) >= _NEARLY_ALL * len(texts)


def _plausible(texts: pl.Series, timestamp_format: str) -> bool:
    years = parse_timestamps(texts, timestamp_format).dt.year()
    return int(((years >= _EARLIEST_YEAR) & (years <= _LATEST_YEAR)).sum()) >= _NEARLY_ALL * len(texts)


def _disorder(texts: pl.Series, timestamp_format: str) -> tuple[float, float]:
    """How often the time falls from one row to the next, and the span of all times."""
    wall = _parse(texts, timestamp_format).wall
    wall = wall[~np.isnan(wall)]
    return float((np.diff(wall) < 0).mean()) if len(wall) > 1 else 0.0, float(np.ptp(wall)) if len(wall) else 0.0


class _Parsed(NamedTuple):
    """Microseconds float64 (n,): wall-clock times since 1970, NaN where unreadable; and offsets from UTC."""

    wall: NDArray[np.float64]
    offset: NDArray[np.float64]


_ISO_BASIC = {
    "yyyymmddhhmm": r"^\d{8}[T _-]\d{4}Z?$",
    "yyyymmddhhmmss": r"^\d{8}[T _-]\d{6}Z?$",
}


def _parse(texts: pl.Series, timestamp_format: str) -> _Parsed:
    if timestamp_format in EPOCHS:
        wall = _epoch(texts, *EPOCHS[timestamp_format])
    elif timestamp_format in DIGITS:
        wall = _digits(texts, *DIGITS[timestamp_format])
    elif timestamp_format == "iso":
        return _iso(texts)
    else:
        return _calendar(texts, CALENDARS[timestamp_format])
    return _Parsed(wall, np.zeros(len(wall)))


def _iso(texts: pl.Series) -> _Parsed:
    """The usual 2014-10-21 13:00:59 by polars, everything else by the regular expression."""
    usual = pl.select(pl.when(texts.str.len_bytes() == 19).then(texts)).to_series().str.replace("T", " ", literal=True)
    times = usual.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False).dt.epoch("us").cast(pl.Float64)
    wall = times.fill_null(float("nan")).to_numpy().copy()
    offset = np.zeros(len(wall))
    if times.null_count() > texts.null_count():
        rows = np.flatnonzero((times.is_null() & texts.is_not_null()).to_numpy())
        parsed = _calendar(texts.gather(rows), CALENDARS["iso"])
        wall[rows], offset[rows] = parsed.wall, parsed.offset
    return _Parsed(wall, offset)


def _calendar(texts: pl.Series, pattern: str) -> _Parsed:
    parts = texts.str.extract_groups(pattern).struct.unnest()
    month = parts["m"].cast(pl.Int64, strict=False)
    if month.null_count() > texts.null_count():
        month = month.fill_null(
            parts["m"]
            .str.to_lowercase()
            .str.replace("^(jui[nl]).*$|^(...).*$", "$1$2")
            .replace_strict(_MONTHS, default=None)
            .cast(pl.Int64)
        )
    year, hour = _float(parts["y"]), _float(parts["H"], 0.0)
    year = np.where(year < 70, year + 2000, np.where(year < 100, year + 1900, year))
    afternoon = parts["ap"].str.to_lowercase().to_numpy()
    if parts["ap"].null_count() < len(parts):
        hour = np.where(afternoon == "p", hour % 12 + 12, np.where(afternoon == "a", hour % 12, hour))
    second = _float(parts["S"], 0.0)
    wall = _microseconds(year, _float(month), _float(parts["d"]), hour, _float(parts["M"], 0.0), second)
    if parts["f"].null_count() < len(parts):
        wall = wall + np.floor(_float("0." + parts["f"].str.slice(0, 6), 0.0) * 1e6 + 0.5)
    if parts["sign"].null_count() == len(parts):
        return _Parsed(wall, np.zeros(len(wall)))
    offset = (_float(parts["oh"], 0.0) * 60 + _float(parts["om"], 0.0)) * 60e6
    return _Parsed(wall, np.where((parts["sign"] == "-").fill_null(False).to_numpy(), -offset, offset))


def _digits(texts: pl.Series, year_digits: int, length: int) -> NDArray[np.float64]:
    if texts.str.contains(r"[^0-9]").any():
        texts = _whole(texts).str.replace(r"^(\d{8})[T _-](\d{4,6})Z?$", "${1}${2}")
    texts = pl.select(pl.when(texts.str.len_bytes() == length).then(texts)).to_series()
    number = texts.cast(pl.Int64, strict=False)
    left = number.fill_null(0).to_numpy()
    parts = []
    for _ in range((length - year_digits) // 2):
        parts.append(left % 100)
        left = left // 100
    parts = [*parts[::-1], *[np.zeros_like(left)] * (5 - len(parts))]
    year = left if year_digits == 4 else np.where(left < 70, left + 2000, left + 1900)
    wall = _microseconds(year, *parts)
    return np.where(number.is_null().to_numpy(), np.nan, wall)


def _epoch(texts: pl.Series, numerator: int, denominator: int) -> NDArray[np.float64]:
    numbers = _float(texts)
    return np.where(np.isfinite(numbers), np.floor(numbers * numerator / denominator + 0.5), np.nan)


def _microseconds(
    year: NDArray[np.number], month: NDArray[np.number], day: NDArray[np.number],
    hour: NDArray[np.number], minute: NDArray[np.number], second: NDArray[np.number],
) -> NDArray[np.float64]:  # fmt: skip
    """Microseconds since 1970 of dates in the Gregorian calendar; NaN where a part is missing or out of its range."""
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    valid = (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second < 61)
    index = np.where(valid, month, 1).astype(np.int64)
    lengths = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
    valid &= day <= lengths[index] + (leap & (index == 2))
    # Days from the civil calendar: years start in March, so that the leap day is the last of its year.
    shifted = year - (index <= 2)
    era = np.floor(shifted / 400)
    of_era = shifted - era * 400
    of_year = np.floor((153 * ((index + 9) % 12) + 2) / 5) + day - 1
    days = era * 146097 + of_era * 365 + np.floor(of_era / 4) - np.floor(of_era / 100) + of_year - 719468
    return np.where(valid, days * float(_DAY) + ((hour * 60.0 + minute) * 60.0 + second) * 1e6, np.nan)


def _whole(texts: pl.Series) -> pl.Series:
    """Whole numbers that were written as floats, without their zeros."""
    return texts.str.replace(r"\.0*$", "")


def _float(texts: pl.Series, missing: float = float("nan")) -> NDArray[np.float64]:
    return texts.cast(pl.Float64, strict=False).fill_null(missing).to_numpy()


def _series(microseconds: NDArray[np.float64], name: str) -> pl.Series:
    # Years beyond what Datetime can hold count as unreadable.
    held = np.where(np.abs(microseconds) < 2**62, microseconds, np.nan)
    return pl.Series(name, held, nan_to_null=True).cast(pl.Int64).cast(pl.Datetime("us"))


def _by_pattern(texts: pl.Series, pattern: str) -> pl.Series:
    # polars does not parse a date without a time, or an hour without minutes, so both are completed.
    if not re.search(r"%[HIklTRcs+X]", pattern):
        texts, pattern = texts + " 00:00", pattern + " %H:%M"
    elif not re.search(r"%[MTRcs+X]", pattern):
        texts, pattern = texts + ":00", pattern + ":%M"
    return texts.str.to_datetime(pattern, strict=False).cast(pl.Datetime("us"))
