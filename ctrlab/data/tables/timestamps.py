"""Parses timestamps in the formats that logs use."""

import re
from collections.abc import Callable
from typing import Literal

import polars as pl

_ISO = r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?$"
_TIME_NAME = re.compile(r"time|date|stamp|epoch|hour|day|(^|_)ts($|_)|_at$", re.IGNORECASE)
_EARLIEST_YEAR, _LATEST_YEAR = 1995, 2050


def parse_timestamps(texts: pl.Series, timestamp_format: str) -> pl.Series:
    """Local wall-clock times as Datetime; null where a cell is empty or unreadable. A UTC offset in the text is dropped.

    Args:
        texts: String series.
        timestamp_format: iso, yyyymmdd, yymmddhh, epoch_s, epoch_ms, or a strptime pattern.

    >>> parse_timestamps(pl.Series(["14102113"]), "yymmddhh").dt.hour().to_list()
    [13]
    """
    parser = _PARSERS.get(timestamp_format)
    return _by_pattern(texts, timestamp_format) if parser is None else parser(texts)


def find_format(texts: pl.Series, name: str) -> str | None:
    """The named format in which every cell is a plausible time, or None.

    Integers count as seconds or milliseconds only in a column whose name suggests a time: ids look the same.

    >>> find_format(pl.Series(["2014-10-21 13:00"]), "hour")
    'iso'
    """
    texts = texts.drop_nulls()
    if not len(texts):
        return None
    if texts.str.contains(_ISO).all():
        candidates: tuple[str, ...] = ("iso",)
    elif texts.str.contains(r"^\d{8}$").all():
        candidates = ("yyyymmdd", "yymmddhh")
    elif _TIME_NAME.search(name) and texts.str.contains(r"^\d{9,13}(\.0+)?$").all():
        candidates = ("epoch_s", "epoch_ms")
    else:
        return None
    return next((candidate for candidate in candidates if _plausible(parse_timestamps(texts, candidate))), None)


def _plausible(times: pl.Series) -> bool:
    if times.null_count():
        return False
    years = times.dt.year()
    return bool(((years >= _EARLIEST_YEAR) & (years <= _LATEST_YEAR)).all())


def _iso(texts: pl.Series) -> pl.Series:
    """2014-10-21, 2014-10-21 13:00, 2014-10-21T13:00:59.5Z: shorter forms are completed to seconds."""
    clock = pl.col("t").str.slice(11, 8).str.replace(r"[Z+-].*$", "")
    completed = clock + pl.lit("00:00:00").str.slice(clock.str.len_bytes())
    full = pl.col("t").str.slice(0, 10) + " " + completed
    return texts.to_frame("t").select(full.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False)).to_series()


def _epoch(texts: pl.Series, unit: Literal["s", "ms"]) -> pl.Series:
    counts = texts.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
    return pl.from_epoch(counts, time_unit=unit).cast(pl.Datetime("us"))


def _by_pattern(texts: pl.Series, pattern: str) -> pl.Series:
    # polars does not parse a date without a time, or an hour without minutes, so both are completed.
    if not re.search(r"%[HIklTRcs+X]", pattern):
        texts, pattern = texts + " 00:00", pattern + " %H:%M"
    elif not re.search(r"%[MTRcs+X]", pattern):
        texts, pattern = texts + ":00", pattern + ":%M"
    return texts.str.to_datetime(pattern, strict=False).cast(pl.Datetime("us"))


_PARSERS: dict[str, Callable[[pl.Series], pl.Series]] = {
    "iso": _iso,
    "yyyymmdd": lambda texts: _by_pattern(texts, "%Y%m%d"),
    "yymmddhh": lambda texts: _by_pattern(texts, "%y%m%d%H"),
    "epoch_s": lambda texts: _epoch(texts, "s"),
    "epoch_ms": lambda texts: _epoch(texts, "ms"),
}
