"""List-valued fields against encodings written out by hand in plain Python, and from the file to the batch."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.data.batches import iterate_batches
from ctrlab.data.configs import ColumnConfig
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.schema import FeatureSchema, ListFeature
from ctrlab.errors import ConfigError, DataError
from tests.support.encode_in_memory import encode_in_blocks

WORDS = st.sampled_from(["a", "b", "c", "ä", "1", ""])
CELLS = st.one_of(st.none(), st.lists(WORDS, max_size=6).map("^".join))
ITEM = ColumnConfig(name="item", role="categorical")


def history(**settings) -> ColumnConfig:
    return ColumnConfig(**({"name": "history", "role": "list", "separator": "^", "max_length": 3} | settings))


def observe_all(columns, frame, train, block_rows):
    """Encoder and encoded lists, as `encode_dataset` makes them: in blocks, fitted on the training rows."""
    encoder, results = encode_in_blocks(columns, frame, train, block_rows)
    empty = np.empty((len(frame), 0), np.int32)
    return encoder, np.hstack([empty, *(results[field.name] for field in encoder.list_fields)])


def elements(cell: str | None, length: int) -> list[str]:
    return [word for word in (cell or "").split("^") if word][-length:]


def padded(ids: list[int], length: int) -> list[int]:
    return ids + [1] * (length - len(ids))


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, st.booleans()), min_size=1, max_size=30),
    min_count=st.integers(1, 3),
    length=st.integers(1, 4),
    block_rows=st.integers(1, 40),
)
def test_a_list_of_its_own_keeps_its_last_elements_with_ids_by_falling_count(rows, min_count, length, block_rows):
    cells, train = map(list, zip(*rows, strict=True))
    counts = Counter(word for cell, is_train in rows if is_train for word in elements(cell, length))
    kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word.encode()))
    expected = [
        padded([kept.index(word) + 2 if word in kept else 0 for word in elements(cell, length)], length) for cell in cells
    ]
    frame = pl.DataFrame({"history": pl.Series(cells, dtype=pl.String)})
    encoder, lists = observe_all([history(min_count=min_count, max_length=length)], frame, train, block_rows)
    assert lists.tolist() == expected
    assert encoder.schema.lists == (ListFeature(name="history", length=length, dim=len(kept) + 2),)
    assert encoder.transform(frame).lists.tolist() == expected


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), CELLS, st.booleans()), min_size=1, max_size=30),
    block_rows=st.integers(1, 40),
)
def test_a_list_that_shares_takes_the_ids_of_its_field_and_changes_none(rows, block_rows):
    items, cells, train = map(list, zip(*rows, strict=True))
    frame = pl.DataFrame({"item": pl.Series(items, dtype=pl.String), "history": pl.Series(cells, dtype=pl.String)})
    encoder, lists = observe_all([history(shares="item"), ITEM], frame, train, block_rows)
    alone, _ = observe_all([ITEM], frame, train, block_rows)
    assert encoder.schema.field_dims == alone.schema.field_dims
    ids = {text: number + 2 for number, text in enumerate(alone.fields[0].vocabulary)}
    assert lists.tolist() == [padded([ids.get(word, 0) for word in elements(cell, 3)], 3) for cell in cells]
    assert encoder.transform(frame).lists.tolist() == lists.tolist()


def test_an_encoder_with_lists_survives_disk(tmp_path):
    frame = pl.DataFrame({"item": ["a", "b", "a"], "history": ["a^b", "b^zzz", None], "tags": ["x|y", None, "y"]})
    tags = ColumnConfig(name="tags", role="list", separator="|", max_length=2)
    encoder = FieldEncoder.fit([frame], [ITEM, history(shares="item"), tags])
    encoder.save(tmp_path)
    loaded = FieldEncoder.load(tmp_path)
    assert loaded.schema == encoder.schema
    np.testing.assert_array_equal(loaded.transform(frame).lists, encoder.transform(frame).lists)
    assert encoder.transform(frame).lists.tolist() == [[2, 3, 1, 3, 2], [3, 0, 1, 1, 1], [1, 1, 1, 2, 1]]


def test_a_schema_with_lists_is_plain_json_and_one_without_is_as_before():
    lists = (ListFeature(name="history", length=3, shares="item"), ListFeature(name="tags", length=2, dim=7))
    schema = FeatureSchema(field_names=("item",), field_dims=(9,), lists=lists, fingerprint="x")
    assert FeatureSchema.from_dict(schema.to_dict()) == schema
    assert schema.table_names == ("item", "tags")
    assert schema.table_dims == (9, 7)
    assert [schema.table_of(feature) for feature in lists] == [0, 1]
    assert [schema.places_of(feature) for feature in lists] == [slice(0, 3), slice(3, 5)]
    assert set(FeatureSchema(field_names=(), field_dims=()).to_dict()) == {
        "field_names",
        "field_dims",
        "value_names",
        "fingerprint",
    }


@pytest.fixture
def with_history(table):
    """The table with a list of sites, as text and as lists, and one of tags with its own ids."""
    lists = [[f"s{(i + k) % 9}" for k in range(i % 5)] for i in range(len(table))]
    return table.with_columns(
        past=pl.Series(lists).list.join("^"),
        past_list=pl.Series(lists),
        tags=pl.Series([f"t{i % 3}|t{i % 4}" for i in range(len(table))]),
    )


COLUMNS = (
    ColumnConfig(name="click", role="label"),
    ColumnConfig(name="site", role="categorical"),
    ColumnConfig(name="past", role="list", separator="^", max_length=3, shares="site"),
    ColumnConfig(name="tags", role="list", separator="|", max_length=2),
)


def test_a_dataset_keeps_lists_counts_and_summary_and_gives_them_in_batches(write, with_history, config_for, tmp_path):
    config = config_for(write("t.csv", with_history.drop("past_list").write_csv()), columns=COLUMNS)
    dataset = encode_dataset(config, tmp_path / "encoded")
    train = dataset.split("train")
    assert isinstance(train.lists, np.memmap)
    assert (train.lists.dtype, train.lists.shape) == (np.int32, (len(train), 5))
    for number, places in enumerate((slice(0, 3), slice(3, 5))):
        elements = train.lists[:, places]
        dim = dataset.schema.table_dims[number]
        np.testing.assert_array_equal(dataset.list_counts(number), np.bincount(elements[elements != 1], minlength=dim))
    summary = {field.name: field for field in dataset.summary.fields}
    assert list(summary) == ["site", "past", "tags"]
    assert (summary["past"].kind, summary["tags"].cardinality) == ("list", 4)
    assert summary["past"].missing_share == pytest.approx((train.lists[:, 0] == 1).mean())
    assert summary["past"].oov_share > 0  # s7 and s8 are no sites
    seen = [fields for fields, _ in iterate_batches(train, 32, shuffle=True, seed=1)]
    rows = Counter(map(tuple, np.concatenate([np.hstack([part.ids, part.lists]) for part in seen]).tolist()))
    assert rows == Counter(map(tuple, np.hstack([train.ids, train.lists]).tolist()))


def test_parquet_lists_encode_as_delimited_texts_do(write, with_history, config_for, tmp_path):
    text = encode_dataset(
        config_for(write("t.csv", with_history.drop("past_list").write_csv()), columns=COLUMNS), tmp_path / "text"
    )
    frame = with_history.drop("past").rename({"past_list": "past"})
    frame.write_parquet(tmp_path / "t.parquet")
    columns = (*COLUMNS[:2], COLUMNS[2].replace(separator=None), COLUMNS[3])
    lists = encode_dataset(config_for(str(tmp_path / "t.parquet"), columns=columns), tmp_path / "lists")
    np.testing.assert_array_equal(lists.split("train").lists, text.split("train").lists)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (COLUMNS[2], "leave its separator empty"),
        (ColumnConfig(name="past", role="categorical"), "make it a list or ignore it"),
        (ColumnConfig(name="tags", role="list"), "set the separator"),
    ],
)
def test_a_separator_that_does_not_fit_the_cells_is_refused(with_history, config_for, tmp_path, column, message):
    with_history.drop("past").rename({"past_list": "past"}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=message):
        encode_dataset(config_for(str(tmp_path / "t.parquet"), columns=(*COLUMNS[:2], column)), tmp_path / "encoded")


def test_a_list_can_only_share_with_a_categorical_column(config_for):
    with pytest.raises(ConfigError, match="list past shares the ids of 'price', which is no categorical column; choose site"):
        config_for("t.csv", columns=(*COLUMNS[:2], COLUMNS[2].replace(shares="price")))
    with pytest.raises(ConfigError, match="at least one character"):
        COLUMNS[2].replace(separator="")


@pytest.mark.parametrize(
    ("list_format", "cells"),
    [
        ("json", ["[3, 24]", "[24, 7, 3]", "[]", None, "[7]"]),
        ("json", ['["3", "24"]', '["24","7","3"]', "[]", "null", '["7"]']),
        ("json", ["['3', '24']", "['24', '7', '3']", "[]", "None", "['7']"]),
        ("json", ["(3, 24)", "(24, 7, 3)", "()", "", "(7,)"]),
        ("json", ["{3, 24}", "{24, 7, 3}", "set()", "", "{7}"]),
        ("json", ["[3.0, nan, 24.0]", "[24.0, 7.0, 3.0]", "[nan]", "nan", "[7.0]"]),
        ("numpy", ["[ 3 24]", "[24  7  3]", "[]", None, "[7]"]),
        ("numpy", ["['3' '24']", "['24' '7'\n '3']", "[]", None, "['7']"]),
        ("json", ["array([ 3, 24])", "array([24,  7,  3], dtype=int32)", "array([], dtype=int32)", None, "array([7])"]),
        (None, ["3|24", " 24 |7|3", "|", None, '"7"']),
    ],
)
def test_lists_in_brackets_share_the_ids_of_a_column(list_format, cells):
    column = ColumnConfig(
        name="history", role="list", separator=None if list_format else "|", list_format=list_format, max_length=3, shares="item"
    )
    frame = pl.DataFrame({"item": ["3", "24", "7", "3", "24"], "history": pl.Series(cells, dtype=pl.String)})
    encoder, lists = observe_all([ITEM, column], frame, [True] * 5, 2)
    assert lists.tolist() == [[3, 2, 1], [2, 4, 3], [1, 1, 1], [1, 1, 1], [4, 1, 1]]
    assert encoder.transform(frame).lists.tolist() == lists.tolist()


def test_elements_in_quotes_may_hold_commas_brackets_and_escapes():
    column = ColumnConfig(name="history", role="list", list_format="json", max_length=4)
    cells = [r'["c]", "a, b", "say \"x\"", "caf\u00e9"]'] * 2
    frame = pl.DataFrame({"history": cells})
    encoder, _ = observe_all([column], frame, [True, True], 2)
    assert set(encoder.list_fields[0].vocabulary) == {"a, b", "c]", 'say "x"', "café"}
