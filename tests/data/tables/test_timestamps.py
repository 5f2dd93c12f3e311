from datetime import datetime, timedelta

import polars as pl
import pytest

from ctrlab.data.tables.timestamps import find_format, find_formats, parse_instants, parse_timestamps

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
        ("21. Oktober 2014 13:00", "dd/month/yyyy"),
        ("21 de outubro de 2014 13:00", "dd/month/yyyy"),
        ("21 oct. 2014 13:00", "dd/month/yyyy"),
        ("2014年10月21日 13:00", "iso"),
        ("2014-10-21T13:00:00Z[Etc/UTC]", "iso"),
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


@pytest.mark.parametrize(
    "months",
    [
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        "januari februari maart april mei juni juli augustus september oktober november december",
    ],
)
def test_months_of_other_languages_are_read(months):
    texts = pl.Series([f"3 {name} 2024" for name in months.split()])
    assert parse_timestamps(texts, "dd/month/yyyy").dt.month().to_list() == list(range(1, 13))


def test_an_empty_column_has_no_format():
    assert find_format(pl.Series([None, None], dtype=pl.String), "time") is None


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("2014102113", "any", "yyyymmddhh"),
        ("201410211300", "any", "yyyymmddhhmm"),
        ("20141021130000", "any", "yyyymmddhhmmss"),
        ("20141021T130000Z", "any", "yyyymmddhhmmss"),
        ("2014102113.0", "any", "yyyymmddhh"),
        ("141021", "date", "yymmdd"),
        ("2014/10/21 13:00:00", "any", "iso"),
        ("2014-10-21 13:00:00,123", "any", "iso"),
        ("2014-10-21 13:00:00 UTC", "any", "iso"),
        ("2014-Oct-21 13:00", "any", "iso"),
        ("21/10/2014 13:00", "any", "dd/mm/yyyy"),
        ("21.10.2014 1:00 PM", "any", "dd/mm/yyyy"),
        ("10/21/2014 1:00:00 PM", "any", "mm/dd/yyyy"),
        ("10/21/14 13:00", "any", "mm/dd/yyyy"),
        ("21 October 2014, 13:00", "any", "dd/month/yyyy"),
        ("[21/Oct/2014:13:00:00 +0200]", "any", "dd/month/yyyy"),
        ("Tue, 21 Oct 2014 13:00:00 GMT", "any", "dd/month/yyyy"),
        ("Oct 21, 2014 1:00 pm", "any", "month dd yyyy"),
        ("Tue Oct 21 13:00:00 UTC 2014", "any", "ctime"),
        ("1413896400.25", "ts", "epoch_s"),
        ("1413896400000000", "ts", "epoch_us"),
        ("1413896400000000000", "createdAt", "epoch_ns"),
    ],
)
def test_calendar_and_epoch_notations_are_recognised_and_give_the_same_time(text, name, found):
    texts = pl.Series([text, None, text])
    assert find_format(texts, name) == found
    hour = 0 if text == "141021" else EXPECTED.hour
    assert parse_timestamps(texts, found).dt.truncate("1h").to_list() == [
        EXPECTED.replace(hour=hour),
        None,
        EXPECTED.replace(hour=hour),
    ]


def test_ten_digits_are_hours_where_they_read_as_a_calendar_and_epoch_seconds_elsewhere():
    assert find_format(pl.Series(["2014102519", "2014103100"]), "timestamp") == "yyyymmddhh"
    seconds = pl.Series([str(2014102519 + 7919 * i) for i in range(500)])  # seconds of the year 2033
    assert find_format(seconds, "timestamp") == "epoch_s"
    assert find_format(pl.Series(["1412312359", "1412312100"]), "ts") == "epoch_s"  # 14-12-31 23:59 as a calendar


def test_day_and_month_are_told_apart_by_the_cells_or_by_their_order():
    days = [datetime(2024, 3, 1) + timedelta(hours=6 * i) for i in range(40)]
    assert find_formats(pl.Series([day.strftime("%d/%m/%Y") for day in days[:40]]), "d")[0] == "dd/mm/yyyy"
    early = [datetime(2024, 3, 1) + timedelta(hours=6 * i) for i in range(44)]  # 1 to 11 March: both readings are dates
    assert find_formats(pl.Series([day.strftime("%d/%m/%Y") for day in early]), "d") == ("dd/mm/yyyy", "mm/dd/yyyy")
    assert find_formats(pl.Series([day.strftime("%m/%d/%Y") for day in early]), "d") == ("mm/dd/yyyy", "dd/mm/yyyy")


@pytest.mark.parametrize("text", ["2023-02-30", "2014-10-21 25:00", "1.2.14", "10.10.20.30", "555-12-1234", "1900-01-01"])
def test_what_is_no_plausible_time_has_no_format(text):
    assert find_format(pl.Series([text] * 3), "version") is None


def test_instants_subtract_the_offset_and_clocks_keep_it():
    texts = pl.Series(["2024-03-01T09:00:00+09:00", "2024-03-01T00:05:00Z", "29/Feb/2024:19:10:00 -0500"])
    assert parse_instants(texts[:2], "iso").to_list() == [datetime(2024, 3, 1), datetime(2024, 3, 1, 0, 5)]
    assert parse_instants(texts[2:], "dd/month/yyyy").to_list() == [datetime(2024, 3, 1, 0, 10)]
    assert parse_timestamps(texts[:2], "iso").dt.hour().to_list() == [9, 0]
    assert parse_timestamps(texts[2:], "dd/month/yyyy").dt.hour().to_list() == [19]


def test_dates_agree_with_the_calendar_of_the_standard_library():
    days = [datetime(1899, 12, 31) + timedelta(days=97 * i, hours=i % 24) for i in range(900)]
    texts = pl.Series([day.strftime("%d/%m/%Y %I:%M %p") for day in days])
    assert parse_timestamps(texts, "dd/mm/yyyy").to_list() == days
