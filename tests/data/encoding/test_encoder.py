"""The encoder against encodings written out by hand in plain Python."""

import math
import statistics
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ctrlab.data.configs import ColumnConfig
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.fields import field_state, restore_field
from ctrlab.data.tables.cells import canonical_text
from ctrlab.errors import DataError
from tests.support.encode_in_memory import encode_in_blocks

CELLS = st.one_of(
    st.none(),
    st.sampled_from(["a", "b", "c", "B", "ä", "1", "01", " a", "a ", "NA", "null", "1.0", "1.00", "true"]),
    st.text(min_size=1, max_size=2),
)
NUMBERS = st.one_of(
    st.none(),
    st.integers(-100, 10**6).map(str),
    st.floats(-1e9, 1e9).map(lambda x: repr(round(x, 3))),
    st.sampled_from(["0", "1", "2", "NA", "nan", "inf", " 7 "]),
)


def observe_all(column: ColumnConfig, cells: list[str | None], train: list[bool], block_rows: int):
    """The ids or values of all rows, encoded as `encode_dataset` does: in blocks, fitted on the training rows."""
    encoder, results = encode_in_blocks([column], frame_of(column, cells), train, block_rows)
    empty = np.empty((len(cells), 0))
    ids = [results[field.name][:, None] for field in encoder.id_fields]
    values = [results[field.name][:, None] for field in encoder.value_fields]
    return encoder, np.hstack([empty.astype(np.int32), *ids]), np.hstack([empty.astype(np.float32), *values])


def frame_of(column: ColumnConfig, cells: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame({column.name: pl.Series(cells, dtype=pl.String)})


def number_of(cell: str | None) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, st.booleans()), min_size=1, max_size=40),
    min_count=st.integers(1, 4),
    block_rows=st.integers(1, 50),
)
def test_categorical_ids_follow_falling_training_counts(rows, min_count, block_rows):
    cells, train = map(list, zip(*rows, strict=True))
    texts = [None if cell is None else canonical_text(cell) for cell in cells]
    counts = Counter(text for text, is_train in zip(texts, train, strict=True) if is_train and text is not None)
    kept = sorted((text for text in counts if counts[text] >= min_count), key=lambda text: (-counts[text], text.encode()))
    assume(not set(kept) & {"0", "1", "true"} or set(kept) & {"a", "b"})  # columns of nothing but true and false: see below
    expected = [1 if text is None else kept.index(text) + 2 if text in kept else 0 for text in texts]

    column = ColumnConfig(name="c", role="categorical", min_count=min_count)
    encoder, ids, _ = observe_all(column, cells, train, block_rows)
    assert ids[:, 0].tolist() == expected
    assert encoder.schema.field_dims == (len(kept) + 2,)
    assert encoder.transform(frame_of(column, cells)).ids[:, 0].tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=40), log=st.booleans(), block_rows=st.integers(1, 50)
)
def test_numbers_are_standardised_by_the_training_rows(rows, log, block_rows):
    cells, train = map(list, zip(*rows, strict=True))
    numbers = [number_of(cell) for cell in cells]
    if log:
        numbers = [None if x is None else math.copysign(math.log1p(abs(x)), x) for x in numbers]
    seen = [x for x, is_train in zip(numbers, train, strict=True) if is_train and x is not None]
    mean = statistics.fmean(seen) if seen else 0.0
    std = statistics.pstdev(seen) if seen else 0.0
    std = std if std > 1e-12 * abs(mean) else 1.0
    expected = [0.0 if x is None else (x - mean) / std for x in numbers]

    column = ColumnConfig(name="x", role="numeric", transform="log" if log else "standard")
    encoder, _, values = observe_all(column, cells, train, block_rows)
    np.testing.assert_allclose(values[:, 0], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(encoder.transform(frame_of(column, cells)).values, values)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=40),
    min_count=st.integers(1, 2),
    block_rows=st.integers(1, 50),
)
def test_criteo_buckets_are_floors_of_squared_logarithms(rows, min_count, block_rows):
    def bucket(cell: str | None):
        x = number_of(cell)
        if x is None:
            return None
        # Large and small buckets do not mix: 3 (bucket 1) is not 1.
        return ("log", min(math.floor(math.log(x) ** 2), 2047)) if x > 2 else ("small", max(math.floor(x), -60))

    cells, train = map(list, zip(*rows, strict=True))
    buckets = [bucket(cell) for cell in cells]
    counts = Counter(b for b, is_train in zip(buckets, train, strict=True) if is_train and b is not None)
    order = sorted((b for b in counts if counts[b] >= min_count), key=lambda b: (-counts[b], b[0] == "log", b[1]))
    expected = [1 if b is None else order.index(b) + 2 if b in order else 0 for b in buckets]

    column = ColumnConfig(name="x", role="numeric", transform="criteo", min_count=min_count)
    encoder, ids, _ = observe_all(column, cells, train, block_rows)
    assert ids[:, 0].tolist() == expected
    np.testing.assert_array_equal(encoder.transform(frame_of(column, cells)).ids, ids)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=60),
    num_buckets=st.integers(2, 6),
    block_rows=st.integers(1, 50),
)
def test_quantile_buckets_are_monotone_and_cut_at_training_quantiles(rows, num_buckets, block_rows):
    cells, train = map(list, zip(*rows, strict=True))
    numbers = [number_of(cell) for cell in cells]
    seen = sorted(x for x, is_train in zip(numbers, train, strict=True) if is_train and x is not None)
    # The smallest number below which, itself included, lies at least q/num_buckets of the training rows.
    quantiles = {seen[math.ceil(q * len(seen) / num_buckets) - 1] for q in range(1, num_buckets)} if seen else set()
    borders = sorted(x for x in quantiles if x < seen[-1])
    expected = [1 if x is None else 2 + sum(border < x for border in borders) for x in numbers]

    column = ColumnConfig(name="x", role="numeric", transform="quantile", num_buckets=num_buckets)
    encoder, ids, _ = observe_all(column, cells, train, block_rows)
    assert ids[:, 0].tolist() == expected
    assert encoder.schema.field_dims == (len(borders) + 3,)
    np.testing.assert_array_equal(encoder.transform(frame_of(column, cells)).ids, ids)


def test_quantiles_of_more_rows_than_the_sample_are_nearly_exact(monkeypatch):
    monkeypatch.setattr("ctrlab.data.encoding.fields.numbers.QUANTILE_SAMPLE_ROWS", 1000)
    numbers = np.random.default_rng(0).permutation(20_011)
    column = ColumnConfig(name="x", role="numeric", transform="quantile", num_buckets=4)
    _, ids, _ = observe_all(column, [str(x) for x in numbers], [True] * len(numbers), 777)
    np.testing.assert_allclose(np.bincount(ids[:, 0])[2:], len(numbers) / 4, rtol=0.2)


def test_times_become_hours_and_weekdays():
    cells = ["2024-03-04 05:00:00", "2024-03-10 05:59:59", None, "2024-03-05 23:00:00", "2024-03-04 05:30:00"]
    column = ColumnConfig(name="t", role="timestamp")
    encoder, ids, _ = observe_all(column, cells, [True] * 3 + [False, True], 2)
    assert encoder.schema.field_names == ("t_hour", "t_weekday")
    # Hour 5 is the only one among the training rows; Monday is more frequent there than Sunday; Tuesday is unseen.
    assert ids.tolist() == [[2, 2], [2, 3], [1, 1], [0, 0], [2, 2]]
    np.testing.assert_array_equal(encoder.transform(frame_of(column, cells)).ids, ids)


def test_a_mean_far_from_zero_leaves_the_standard_deviation_exact():
    numbers = 1e9 + np.random.default_rng(0).standard_normal(5000)
    _, _, values = observe_all(ColumnConfig(name="x", role="numeric"), [repr(x) for x in numbers.tolist()], [True] * 5000, 700)
    assert abs(values.std() - 1) < 1e-5
    assert abs(values.mean()) < 1e-5


def test_a_saved_encoder_encodes_alike_and_has_the_same_fingerprint(tmp_path, table, config_for):
    columns = (*config_for("x").columns, ColumnConfig(name="bucket", role="numeric", transform="quantile", num_buckets=4))
    frame = table.with_columns(bucket=pl.col("price"))
    encoder = FieldEncoder.fit([frame], columns)
    encoder.save(tmp_path)
    loaded = FieldEncoder.load(tmp_path)
    assert loaded.schema == encoder.schema
    before, after = encoder.transform(frame), loaded.transform(frame)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.values, after.values)


def test_the_fingerprint_changes_with_the_vocabulary_and_with_the_statistics():
    columns = [ColumnConfig(name="c", role="categorical"), ColumnConfig(name="x", role="numeric")]
    tables = [{"c": ["a", "b"], "x": ["1", "2"]}, {"c": ["a", "d"], "x": ["1", "2"]}, {"c": ["a", "b"], "x": ["1", "3"]}]
    prints = {FieldEncoder.fit([pl.DataFrame(table)], columns).schema.fingerprint for table in tables}
    assert len(prints) == 3


def test_rows_without_a_needed_column_are_refused(table, config_for):
    encoder = FieldEncoder.fit([table], config_for("x").columns)
    with pytest.raises(DataError, match="column site is missing"):
        encoder.transform(table.drop("site"))


def test_a_numeric_column_full_of_words_is_refused():
    with pytest.raises(DataError, match="'x' has 50 cells of 100 that cannot be read"):
        FieldEncoder.fit([pl.DataFrame({"x": ["1", "abc"] * 50})], [ColumnConfig(name="x", role="numeric")])


def test_times_in_no_known_format_are_refused():
    with pytest.raises(DataError, match="no known format"):
        FieldEncoder.fit([pl.DataFrame({"t": ["yesterday", "today"]})], [ColumnConfig(name="t", role="timestamp")])


def test_two_fields_of_one_name_are_refused():
    columns = [ColumnConfig(name="t", role="timestamp"), ColumnConfig(name="t_hour", role="categorical")]
    with pytest.raises(DataError, match="t_hour"):
        FieldEncoder.for_columns(columns)


def test_a_damaged_encoder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no field encoder"):
        FieldEncoder.load(tmp_path)


def test_spellings_of_true_and_false_are_one_category_where_nothing_else_is():
    column = ColumnConfig(name="c", role="categorical")
    encoder = FieldEncoder.fit([frame_of(column, ["True"] * 3 + ["1"] * 2 + ["False"])], [column])
    (field,) = encoder.fields
    assert field.vocabulary.to_list() == ["True", "False"]
    rows = frame_of(column, ["true", "1", "0", "FALSE", "2", None])
    assert encoder.transform(rows).ids.ravel().tolist() == [2, 2, 3, 3, 0, 1]
    assert field.encode(field.parse(rows["c"]).cells).tolist() == [2, 2, 3, 3, 0, 1]
    mixed = FieldEncoder.fit([frame_of(column, ["True", "1", "7"])], [column])
    assert mixed.fields[0].vocabulary.to_list() == ["1", "7", "True"]


def test_numbers_in_another_notation_and_further_words_are_encoded_and_restored():
    columns = [
        ColumnConfig(name="price", role="numeric", number_format="1.234,5"),
        ColumnConfig(name="site", role="categorical", trim=False),
    ]
    rows = pl.DataFrame({"price": ["1.000,5", "999,5", "leer"], "site": ["a", " a", "Leer"]})
    encoder = FieldEncoder.fit([rows], columns, ("leer",))
    assert [field.unreadable for field in encoder.fields] == [0, 0]
    again = [
        restore_field(field_state(field), getattr(field, "vocabulary", pl.Series(dtype=pl.String))) for field in encoder.fields
    ]
    for fields in (encoder, FieldEncoder(again)):
        block = fields.transform(rows)
        assert block.values.ravel().tolist() == [1.0, -1.0, 0.0]
        assert block.ids.ravel().tolist() == [3, 2, 1]
