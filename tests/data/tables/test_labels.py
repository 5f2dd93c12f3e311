import polars as pl
import pytest

from ctrlab.data.configs import ColumnConfig
from ctrlab.data.tables.labels import LabelEncoder
from ctrlab.errors import DataError


def encoder_of(weight=None, **settings):
    return LabelEncoder(ColumnConfig(name="y", role="label", **settings), weight)


def encode(encoder, cells, first_row=0, **others):
    """(labels, weights, kept) of a block, as lists."""
    columns = {name: pl.Series(name, texts, pl.String) for name, texts in ({"y": cells} | others).items()}
    found = encoder.encode(columns, first_row)
    return tuple(None if part is None else part.tolist() for part in (found.labels, found.weights, found.kept))


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
    assert encode(encoder_of(), [no, yes, yes]) == ([0, 1, 1], None, None)


def test_spellings_of_one_label_may_differ_between_blocks():
    encoder = encoder_of()
    assert encode(encoder, ["0", "1"])[0] == [0, 1]
    assert encode(encoder, ["1.0", "0.0"], 2)[0] == [1, 0]


@pytest.mark.parametrize("values", [["1", "2", "3"], ["0", "1", "-1"], ["1", "2"], ["cat", "dog"], ["0", "1", "maybe"], ["7"]])
def test_other_values_are_refused_and_shown(values):
    with pytest.raises(DataError, match=r"label 'y' holds .*\(.*\) and not 0/1, -1/1, true/false or yes/no") as caught:
        encode(encoder_of(), values)
    assert all(value in str(caught.value) for value in values)


def test_a_third_value_in_a_later_block_is_refused():
    encoder = encoder_of()
    encode(encoder, ["0", "1"])
    with pytest.raises(DataError, match="3 different values"):
        encode(encoder, ["2"], 2)


def test_an_empty_label_is_refused_with_its_row():
    with pytest.raises(DataError, match="empty in data row 103"):
        encode(encoder_of(), ["0", "1", None], 100)


def test_positive_texts_are_clicks_and_all_others_are_none():
    assert encode(encoder_of(positive=("2",)), ["1", "2", "2.0", " 2 ", "3"])[0] == [0, 1, 1, 1, 0]
    assert encode(encoder_of(positive=("click", "buy")), ["click", "no click", "buy", "view"])[0] == [1, 0, 1, 0]


def test_a_threshold_takes_numbers_from_it_on_as_clicks():
    assert encode(encoder_of(threshold=3), ["1", "3", "2.9", "4"])[0] == [0, 1, 0, 1]
    with pytest.raises(DataError, match="holds 'good', which is no number"):
        encode(encoder_of(threshold=3), ["1", "good"])


@pytest.mark.parametrize("empty", [None, "NA", "null", " "])
def test_rows_with_an_empty_label_are_refused_dropped_or_negative(empty):
    cells = ["1", empty, "0"]
    with pytest.raises(DataError, match="empty in data row 2; set empty_label to drop"):
        encode(encoder_of(), cells)
    assert encode(encoder_of(empty_label="drop"), cells) == ([1, 0], None, [True, False, True])
    assert encode(encoder_of(empty_label="negative"), cells) == ([1, 0, 0], None, None)
    assert encode(encoder_of(empty_label="drop", positive=("1",)), cells)[0] == [1, 0]


def test_a_soft_label_is_a_share_and_nothing_outside_0_to_1():
    assert encode(encoder_of(soft=True), ["0.25", "1", "0"])[0] == [0.25, 1.0, 0.0]
    with pytest.raises(DataError, match=r"is 1\.5 in data row 12, outside 0 to 1"):
        encode(encoder_of(soft=True), ["0.5", "1.5"], 10)
    with pytest.raises(DataError, match="holds 'x' in data row 1"):
        encode(encoder_of(soft=True), ["x"])


def test_clicks_of_impressions_are_shares_weighed_by_impressions():
    encoder = encoder_of(label_total="views", weight="views")
    assert encode(encoder, ["1", "0", "0"], views=["4", "2", "0"]) == ([0.25, 0.0], [4.0, 2.0], [True, True, False])
    with pytest.raises(DataError, match="is 5 in data row 1, outside 0 to 4 views"):
        encode(encoder, ["5"], views=["4"])


def test_a_column_of_weights_stands_beside_a_plain_label():
    labels, weights, kept = encode(encoder_of(weight="w"), ["1", "0", "1"], w=["2", "0.5", "0"])
    assert (labels, weights, kept) == ([1, 0], [2.0, 0.5], [True, True, False])
    with pytest.raises(DataError, match="column 'w' holds None in data row 2"):
        encode(encoder_of(weight="w"), ["1", "0"], w=["2", None])
