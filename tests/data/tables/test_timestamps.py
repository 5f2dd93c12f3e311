from datetime import datetime

import polars as pl
import pytest

from ctrlab.data.tables.timestamps import find_format, parse_timestamps

EXPECTED = datetime(2014, 10, 21, 13, 0)


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("2014-10-21", "d", "iso"),
        ("2014-10-21 13:00", "d", "iso"),
        ("2014-10-21T13:00:59.5Z", "d", "iso"),
        ("2014-10-21 13:00:00+02:00", "d", "iso"),
        ("14102113", "hour", "yymmddhh"),
        ("20141021", "anything", "yyyymmdd"),
        ("1413896400", "timestamp", "epoch_s"),
        ("1413896400", "user", None),
        ("1413896400000", "ts", "epoch_ms"),
        ("12345678", "id", None),
        ("99999999", "id", None),
        ("hello", "time", None),
    ],
)
def test_formats_are_recognised(text, name, found):
    assert find_format(pl.Series([text, None, text]), name) == found
    assert find_format(pl.Series([text, "nonsense"]), name) is None


@pytest.mark.parametrize(
    ("text", "timestamp_format"),
    [
        ("2014-10-21 13:00", "iso"),
        ("2014-10-21T13:00:00Z", "iso"),
        ("2014-10-21 13:00+02:00", "iso"),
        ("14102113", "yymmddhh"),
        ("1413896400", "epoch_s"),
        ("1413896400000", "epoch_ms"),
        ("21/10/2014 13", "%d/%m/%Y %H"),
        ("21.10.2014 13:00", "%d.%m.%Y %H:%M"),
        ("10/21/2014 01:00 PM", "%m/%d/%Y %I:%M %p"),
    ],
)
def test_each_format_gives_the_same_time(text, timestamp_format):
    assert parse_timestamps(pl.Series([text, None, "?"]), timestamp_format).to_list() == [EXPECTED, None, None]


@pytest.mark.parametrize(
    ("text", "timestamp_format"), [("2014-10-21", "iso"), ("20141021", "yyyymmdd"), ("21.10.2014", "%d.%m.%Y")]
)
def test_dates_are_midnights(text, timestamp_format):
    assert parse_timestamps(pl.Series([text]), timestamp_format).to_list() == [datetime(2014, 10, 21)]


def test_an_empty_column_has_no_format():
    assert find_format(pl.Series([None, None], dtype=pl.String), "time") is None
