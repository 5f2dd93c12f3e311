import polars as pl
import pytest

from ctrlab.data.tables.labels import LabelEncoder
from ctrlab.errors import DataError


@pytest.mark.parametrize(
    ("no", "yes"),
    [
        ("0", "1"),
        ("0.0", "1.0"),
        ("-1", "1"),
        ("False", "True"),
        ("no", "yes"),
        ("N", "Y"),
        ("f", "t"),
        ("0", "1.0"),
        (" 0", "+1"),
    ],
)
def test_usual_spellings_of_clicks_are_understood(no, yes):
    assert LabelEncoder("y").encode(pl.Series([no, yes, yes]), 0).tolist() == [0, 1, 1]


def test_spellings_of_one_label_may_differ_between_blocks():
    encoder = LabelEncoder("y")
    assert encoder.encode(pl.Series(["0", "1"]), 0).tolist() == [0, 1]
    assert encoder.encode(pl.Series(["1.0", "0.0"]), 2).tolist() == [1, 0]


@pytest.mark.parametrize("values", [["1", "2", "3"], ["0", "1", "-1"], ["1", "2"], ["cat", "dog"], ["0", "1", "maybe"], ["7"]])
def test_other_values_are_refused_and_shown(values):
    with pytest.raises(DataError, match=r"label 'y' holds .*\(.*\); a label is 0/1, -1/1, true/false or yes/no") as caught:
        LabelEncoder("y").encode(pl.Series(values), 0)
    assert all(value in str(caught.value) for value in values)


def test_a_third_value_in_a_later_block_is_refused():
    encoder = LabelEncoder("y")
    encoder.encode(pl.Series(["0", "1"]), 0)
    with pytest.raises(DataError, match="3 different values"):
        encoder.encode(pl.Series(["2"]), 2)


def test_an_empty_label_is_refused_with_its_row():
    with pytest.raises(DataError, match="empty in data row 103"):
        LabelEncoder("y").encode(pl.Series(["0", "1", None]), 100)
