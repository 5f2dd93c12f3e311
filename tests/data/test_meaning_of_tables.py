"""Whole tables whose cells need interpretation: from the file to the roles, the config and the encoded dataset."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ctrlab.data.configs import SourceConfig
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.tables.draft import draft_config
from ctrlab.data.tables.inspect import TableInspection, inspect_table

CASES = Path(__file__).parent / "cases"


def inspect(*paths: Path | str):
    return inspect_table(SourceConfig(paths=tuple(str(path) for path in paths)))


def encoded(inspection, folder: Path, **settings):
    return encode_dataset(draft_config(inspection, "t", **settings), folder / "encoded")


def fields_of(dataset):
    return {field.name: field for field in dataset.summary.fields}


def written(folder: Path, columns: dict, name: str = "t.csv") -> Path:
    pl.DataFrame(columns).write_csv(folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("file", "word", "missing"),
    [
        ("na", "NA", 115), ("nan", "NaN", 89), ("hiveN", "\\N", 93), ("null", "NULL", 97), ("none", "None", 92), ("qm", "?", 105),
        ("excelna", "#N/A", 106), ("parnull", "(null)", 104), ("inf", "inf", 24),
    ],
)  # fmt: skip
def test_words_for_missing_are_counted_and_the_column_stays_numeric(tmp_path, file, word, missing):
    inspection = inspect(CASES / f"missing_{file}.csv")
    price = inspection.column["price"]
    assert (price.role, price.missing_words) == ("numeric", ((word, missing),))
    assert price.missing_share == pytest.approx(missing / 1200)
    assert word not in price.examples
    field = fields_of(encoded(inspection, tmp_path))["price"]
    assert field.unreadable == 0
    assert field.missing_share == pytest.approx(missing / 1200, abs=0.03)


def test_words_for_missing_are_missing_in_every_role_and_further_words_can_be_given(tmp_path):
    rows = 300
    path = written(tmp_path, {
        "click": [i % 2 for i in range(rows)],
        "site": [["a", "b", "NULL", "leer"][i % 4] for i in range(rows)],
        "age": [str(20 + i % 60 + 0.5) if i % 3 else "leer" for i in range(rows)],
        "at": [f"2024-03-{1 + i % 28:02d}" if i % 5 else "leer" for i in range(rows)],
        "past": [["x|y", "x", "z|x|y", "leer", "y|n/a"][i % 5] for i in range(rows)],
    })  # fmt: skip
    inspection = inspect_table(SourceConfig(paths=(str(path),), missing_words=("leer",)))
    roles = {name: (column.role, round(column.missing_share, 2)) for name, column in inspection.column.items()}
    assert roles["site"] == ("categorical", 0.5)
    assert roles["age"] == ("numeric", 0.33)
    assert roles["at"] == ("timestamp", 0.2)
    fields = fields_of(encoded(inspection, tmp_path))
    assert [fields[name].unreadable for name in ("age", "at_hour")] == [0, 0]
    assert (fields["site"].cardinality, fields["past"].cardinality) == (2, 3)
    assert TableInspection.from_dict(inspection.to_dict()) == inspection


def test_words_of_any_language_that_recur_among_numbers_or_times_are_missing_with_a_warning(tmp_path):
    rows, words = 600, ["k.A.", "不明", "not given"]
    columns = {f"price {j}": [word if i % 7 == 0 else f"{5 + i % 90}.5" for i in range(rows)] for j, word in enumerate(words)}
    path = written(tmp_path, {
        "click": [i % 2 for i in range(rows)], **columns,
        "at": ["nie" if i % 7 == 0 else f"2024-03-{1 + i % 28:02d}" for i in range(rows)],
        "code": ["other" if i % 7 == 0 else str(100 + i % 30) for i in range(rows)],
        "size": [["S", "M", "L", "XL", "38", "40"][i % 6] for i in range(rows)],
        "amount": [f"{7 + 3 * i}.00" for i in range(rows)],
    })  # fmt: skip
    inspection = inspect(path)
    roles = {column.name: (column.role, round(column.missing_share, 2)) for column in inspection.columns}
    assert roles == {
        "click": ("label", 0), **dict.fromkeys(columns, ("numeric", 0.14)), "at": ("timestamp", 0.14),
        "code": ("categorical", 0), "size": ("categorical", 0), "amount": ("numeric", 0),
    }  # fmt: skip
    assert inspection.source.missing_words == (*words, "nie")
    notes = [note for note in inspection.notes if note.kind == "missing_words"]
    assert [note.column for note in notes] == [*columns, "at"] and "'不明' in 86 of 600 rows" in notes[1].text
    fields = fields_of(encoded(inspection, tmp_path))
    assert all(fields[name].unreadable == 0 and fields[name].missing_share == pytest.approx(0.14, abs=0.03) for name in columns)


def test_a_number_that_stands_for_a_missing_cell_is_warned_of(tmp_path):
    rows = range(500)
    path = written(tmp_path, {
        "click": [i % 2 for i in rows],
        "age": [-999.0 if i % 9 == 0 else 20.5 + i % 60 for i in rows],
        "price": [9999.0 if i % 400 == 0 else 20.5 + i % 60 for i in rows],
        "debt": [-999.0 + i * 7.5 for i in rows],
    })  # fmt: skip
    inspection = inspect(path)
    (note,) = [note for note in inspection.notes if note.kind == "stand_in"]
    assert note.column == "age" and "add -999.0 to missing_words" in note.remedy
    again = inspect_table(inspection.source.replace(missing_words=("-999.0",)))
    assert again.column["age"].minimum == 20.5 and not [note for note in again.notes if note.kind == "stand_in"]


@pytest.mark.parametrize(
    ("file", "number_format", "minimum", "maximum"),
    [
        ("decimal_comma", "1234,5", 7.77, 3525.31),
        ("thousands_point", "1.234,5", 7.77, 3525.31),
        ("thousands_comma", "1,234.5", 7.77, 3525.31),
        ("currency", "1234.5", 7.77, 3525.31),
        ("percent", "1234.5", 0.1, 35.3),
    ],
)
def test_numbers_in_another_notation_are_numeric_and_encoded(tmp_path, file, number_format, minimum, maximum):
    inspection = inspect(CASES / f"{file}.csv")
    price = inspection.column["price"]
    assert (price.role, price.number_format, price.minimum, price.maximum) == ("numeric", number_format, minimum, maximum)
    dataset = encoded(inspection, tmp_path)
    assert dataset.schema.value_names == ("price",)
    assert fields_of(dataset)["price"].unreadable == 0


def test_a_mark_before_three_digits_everywhere_is_noted_with_the_other_reading(tmp_path):
    prices = [f"{1 + i % 9}.{(i * 37) % 1000:03d}" for i in range(300)]
    inspection = inspect(written(tmp_path, {"click": [i % 2 for i in range(300)], "price": prices}))
    (note,) = [note for note in inspection.notes if note.kind == "number_format"]
    assert (note.column, inspection.column["price"].number_format) == ("price", "1234.5")
    assert "1.234,5" in note.remedy


@pytest.mark.parametrize("files", [("int_train.csv", "float_valid.csv"), ("pq_train_int.parquet", "pq_test_float.parquet")])
def test_ids_whole_in_one_file_and_fractions_in_the_next_are_one_category(tmp_path, files):
    dataset = encoded(inspect(*(CASES / file for file in files)), tmp_path, several="splits")
    (field,) = dataset.summary.fields
    assert (field.cardinality, field.oov_by_split) == (12, {"valid": 0.0})
    ids = dataset.split("valid").ids[:, 0]
    assert int((ids == 1).sum()) == (8 if files[0].endswith("csv") else 6)
    assert dataset.summary.notes == ()


def test_values_that_training_never_saw_are_noted_with_the_share_of_the_split(tmp_path):
    rows = 400
    train = written(
        tmp_path, {"click": [i % 2 for i in range(rows)], "item": [f"item{i % 20}" for i in range(rows)]}, "train.csv"
    )
    valid = written(
        tmp_path, {"click": [i % 2 for i in range(rows)], "item": [f"Item{i % 20}" for i in range(rows)]}, "valid.csv"
    )
    dataset = encoded(inspect(train, valid), tmp_path, several="splits")
    (note,) = dataset.summary.notes
    assert (note.kind, note.column, note.severity) == ("out_of_vocabulary", "item", "warning")
    assert "100% of the valid rows" in note.text


def test_a_random_split_of_many_rare_values_is_expected_to_have_unseen_ones(tmp_path):
    draw = np.random.default_rng(0)
    rows = 4000
    users = [f"u{user}" for user in draw.integers(0, 3000, rows)]
    dataset = encoded(inspect(written(tmp_path, {"click": [i % 2 for i in range(rows)], "user": users})), tmp_path)
    field = fields_of(dataset)["user"]
    assert field.oov_by_split["valid"] > 0.2
    assert field.oov_expected == pytest.approx(field.oov_by_split["valid"], abs=0.08)
    assert dataset.summary.notes == ()


def test_a_column_of_numbers_that_holds_texts_in_the_next_file_is_categorical_with_a_note(tmp_path):
    train = written(tmp_path, {"click": [i % 2 for i in range(99)], "x": [i + 0.5 for i in range(99)]}, "train.csv")
    valid = written(tmp_path, {"click": [i % 2 for i in range(99)], "x": ["low", "high", "low"] * 33}, "valid.csv")
    inspection = inspect(train, valid)
    assert inspection.column["x"].role == "categorical"
    (note,) = [note for note in inspection.notes if note.kind == "files_differ"]
    assert "100% of its cells in valid.csv" in note.text


@pytest.mark.parametrize(
    ("file", "list_format", "shares", "first"),
    [("list_pyrepr", "json", "item", "9"), ("list_npyrepr", "numpy", "item", "9"), ("list_json", "json", None, "N9")],
)
def test_lists_as_programs_print_them_are_lists(tmp_path, file, list_format, shares, first):
    inspection = inspect(CASES / f"{file}.csv")
    column = inspection.column["hist"]
    assert (column.role, column.list_format, column.separator, column.shares) == ("list", list_format, None, shares)
    assert (column.distinct, column.max_length, column.examples[0]) == (30, 6, first)
    dataset = encoded(inspection, tmp_path)
    assert sum(int((dataset.split(name).lists > 1).sum()) for name in dataset.splits) == 4158
    assert fields_of(dataset)["hist"].cardinality == 30


@pytest.mark.parametrize(("separator", "is_list"), [(",", True), (" ", True), (", ", True), ("-", False)])
def test_ids_between_commas_or_blanks_are_lists(tmp_path, separator, is_list):
    past = [separator.join(f"i{(i * 7 + k) % 30}" for k in range(1 + i % 6)) for i in range(300)]
    inspection = inspect(written(tmp_path, {"click": [i % 2 for i in range(300)], "past": past}))
    assert (inspection.column["past"].role == "list") is is_list


@pytest.mark.parametrize("text", ["buy now, pay later", "(see below)", "12 34", "a (b) [c]"])
def test_texts_with_commas_and_brackets_are_no_lists(tmp_path, text):
    texts = [f"{text} {i % 7}" for i in range(300)]
    inspection = inspect(written(tmp_path, {"click": [i % 2 for i in range(300)], "t": texts}))
    assert inspection.column["t"].role == "categorical"


@pytest.mark.parametrize("file", ["cat_space", "comma_space"])
def test_blanks_around_cells_do_not_make_categories(tmp_path, file):
    inspection = inspect(CASES / f"{file}.csv")
    assert inspection.column["site"].distinct == 12
    dataset = encoded(inspection, tmp_path)
    assert fields_of(dataset)["site"].cardinality == 12
    assert dataset.schema.value_names == ("price",)


def test_ids_that_became_floats_are_warned_of_by_inspect_and_encode(tmp_path):
    inspection = inspect(CASES / "pq_floatids.parquet")
    notes = [note for note in inspection.notes if note.kind == "float_ids"]
    notes += [note for note in encoded(inspection, tmp_path).summary.notes if note.kind == "float_ids"]
    assert [note.column for note in notes] == ["user_id", "user_id"]
    assert "int64 or text" in notes[0].remedy


def log_of(rows: int, seed: int = 0) -> dict:
    """A log whose click depends on a sparse id, a count and an amount, with columns known only after the click."""
    draw = np.random.default_rng(seed)
    shops = draw.permutation(10**7)[:200][draw.integers(0, 200, rows)]
    effect = dict(zip(np.unique(shops).tolist(), draw.normal(0, 1, 200).tolist(), strict=False))
    visits, price = draw.negative_binomial(1, 0.02, rows), np.round(np.exp(draw.normal(7, 1.2, rows))).astype(int)
    odds = np.array([effect[shop] for shop in shops.tolist()]) + 0.6 * np.log1p(visits) - 0.6 * np.log(price / 1000) - 2
    click = (draw.random(rows) < 1 / (1 + np.exp(-odds))).astype(int)
    return {
        "click": click, "shop": shops, "visits": visits, "price": price, "noise": draw.integers(0, 4000, rows),
        "request": draw.integers(0, 10**9, rows), "mirror": 1 - click, "dwell": [1 + i % 99 if c else None for i, c in enumerate(click.tolist())],
        "clicked_at": [f"2024-03-01 10:{i % 60:02d}:00" if c else None for i, c in enumerate(click.tolist())],
    }  # fmt: skip


def test_integers_are_ids_unless_their_order_predicts_the_label(tmp_path):
    inspection = inspect(written(tmp_path, log_of(12_000)))
    roles = {name: inspection.column[name].role for name in ("shop", "visits", "price", "noise", "request")}
    assert roles == {"shop": "categorical", "visits": "numeric", "price": "numeric", "noise": "categorical", "request": "ignore"}
    (doubt,) = [note for note in inspection.notes if note.column == "noise"]
    assert doubt.kind == "ids_or_numbers"
    assert "as ids they predict" in doubt.text and "as numbers in order" in doubt.text


def test_columns_known_only_after_the_click_are_leaks_and_rare_ids_are_not(tmp_path):
    inspection = inspect(written(tmp_path, log_of(6_000)))
    leaks = {note.column for note in inspection.notes if note.kind == "leak"}
    assert leaks == {"mirror", "dwell", "clicked_at"}


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("Unnamed: 0", range(500)),
        ("n", range(1, 501)),
        ("Unnamed: 0", [(i * 263) % 997 for i in range(500)]),
        ("index", [*range(250), *range(250)]),
    ],
)
def test_row_numbers_and_saved_indexes_are_ignored_with_the_reason(tmp_path, name, numbers):
    inspection = inspect(written(tmp_path, {name: list(numbers), "click": [i % 2 for i in range(500)], "x": ["a", "b"] * 250}))
    column = inspection.column[name]
    assert column.role == "ignore"
    assert "row number" in column.reason or "saved index" in column.reason


def test_a_date_that_could_be_either_way_is_noted_with_its_readings(tmp_path):
    days = [f"{1 + i % 9:02d}/{1 + i % 7:02d}/2024" for i in range(300)]
    inspection = inspect(written(tmp_path, {"click": [i % 2 for i in range(300)], "day": days}))
    (note,) = [note for note in inspection.notes if note.kind == "time_format"]
    assert len(inspection.column["day"].time_examples) == 3
    assert inspection.column["day"].timestamp_format in ("dd/mm/yyyy", "mm/dd/yyyy")
    assert inspection.column["day"].time_examples[0] in note.text


@pytest.mark.realdata
def test_roles_label_and_times_of_real_datasets_are_right_without_an_edit(realdata):
    criteo = inspect(realdata / "criteo_137k.parquet")
    assert criteo.label == "label"
    roles = {name: column.role for name, column in criteo.column.items() if name != "label"}
    assert roles == {name: "numeric" if name.startswith("I") else "categorical" for name in roles}
    assert criteo.column["I5"].transform == "log"
    avazu = inspect(realdata / "avazu_33k.csv.gz")
    assert (avazu.label, avazu.column["id"].role) == ("click", "ignore")
    assert (avazu.column["hour"].timestamp_format, avazu.column["hour"].time_examples[0]) == ("yymmddhh", "2014-10-21 00:00:00")
    others = {column.role for column in avazu.columns if column.name not in ("id", "click", "hour")}
    assert others == {"categorical"}
    frappe = inspect(*(realdata / "frappe_x1" / f"{name}.csv.gz" for name in ("train", "valid", "test")))
    assert frappe.label == "label"
    assert {column.role for column in frappe.columns if column.name != "label"} == {"categorical"}
    assert not [note for found in (criteo, avazu, frappe) for note in found.notes if note.kind in ("leak", "files_differ")]
