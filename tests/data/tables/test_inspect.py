import polars as pl
import pytest

from ctrlab.data.configs import SourceConfig
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.tables.draft import draft_config
from ctrlab.data.tables.inspect import inspect_table
from ctrlab.errors import DataError


def inspect(path: str, **options):
    return inspect_table(SourceConfig(paths=(path,)), **options)


def test_roles_of_columns_are_inferred(write, table):
    inspection = inspect(write("t.csv", table.write_csv()))
    assert {name: column.role for name, column in inspection.column.items()} == {
        "click": "label", "site": "categorical", "rare": "categorical", "price": "numeric", "when": "timestamp",
    }  # fmt: skip
    assert inspection.rows == 200
    assert inspection.complete
    assert [found.column for found in inspection.label_candidates] == ["click"]
    assert inspection.ctr == pytest.approx(0.2)
    site, price = inspection.column["site"], inspection.column["price"]
    assert site.distinct == 7
    assert site.missing_share == pytest.approx(19 / 200)
    assert len(site.examples) == 5
    assert (price.minimum, price.maximum) == (0.5, 99.5)
    assert inspection.column["when"].timestamp_format == "iso"


def test_the_draft_encodes_as_it_stands(write, table, tmp_path):
    config = draft_config(inspect(write("t.csv", table.write_csv())), "mine")
    assert config.label == "click"
    assert config.split.method == "stratified"
    dataset = encode_dataset(config, tmp_path / "encoded")
    assert dataset.schema.field_names == ("site", "rare", "when_hour", "when_weekday")


def test_a_draft_of_a_file_without_a_header_encodes_too(write, table, tmp_path):
    path = write("t.tsv", table.write_csv(separator="\t", include_header=False))
    inspection = inspect(path)
    assert inspection.source.header is False
    assert inspection.source.delimiter == "\t"
    config = draft_config(inspection, "mine")
    assert config.label == "column_1"
    assert encode_dataset(config, tmp_path / "encoded").num_rows("train") == 140


def test_a_draft_of_split_files_splits_by_files(write, table):
    paths = tuple(write(f"{i}.csv", table.write_csv()) for i in range(3))
    assert draft_config(inspect_table(SourceConfig(paths=paths)), "mine", several="splits").split.method == "files"
    with pytest.raises(DataError, match="3 files are given: say whether they are parts of one table"):
        draft_config(inspect_table(SourceConfig(paths=paths)), "mine")


def test_a_column_with_a_usual_label_name_is_the_first_candidate(write):
    text = "weekend,Click,other\n" + "".join(f"{i % 2},{int(i % 3 == 0)},{i % 2}\n" for i in range(60))
    inspection = inspect(write("t.csv", text))
    assert [found.column for found in inspection.label_candidates] == ["Click", "other", "weekend"]
    config = draft_config(inspection, "mine", label="weekend")
    assert config.label == "weekend"
    assert {column.name: column.role for column in config.columns}["Click"] == "categorical"


@pytest.mark.parametrize(("no", "yes"), [("False", "True"), ("0.0", "1.0"), ("no", "yes"), ("-1", "1")])
def test_labels_in_words_are_candidates_and_counted(write, no, yes):
    inspection = inspect(write("t.csv", "y,x\n" + f"{no},a\n{yes},b\n{no},c\n{no},d\n"))
    assert inspection.label == "y"
    assert inspection.ctr == 0.25


def test_a_column_of_one_value_or_none_is_ignored_with_the_reason(write):
    inspection = inspect(write("t.csv", "click,same,empty,x\n" + "".join(f"{i % 2},k,,{i % 3}\n" for i in range(30))))
    assert inspection.column["same"].role == inspection.column["empty"].role == "ignore"
    assert inspection.column["same"].reason == "every row has the same value, k"
    assert inspection.column["empty"].reason == "every cell is empty"


def test_a_table_without_a_feature_is_refused_with_the_reasons(write):
    inspection = inspect(write("t.csv", "click,same\n" + "".join(f"{i % 2},k\n" for i in range(30))))
    with pytest.raises(DataError, match=r"no column is left .*same: every row has the same value, k"):
        draft_config(inspection, "mine")


def test_a_table_without_a_label_column_is_refused_with_the_allowed_values(write):
    inspection = inspect(write("t.csv", "a,b\n" + "".join(f"{i % 3},x{i % 4}\n" for i in range(30))))
    assert inspection.label_candidates == () and inspection.label is None
    assert inspection.ctr is None
    with pytest.raises(DataError, match="no column of the table can be the label"):
        draft_config(inspection, "mine")
    with pytest.raises(DataError, match="no column 'clicks'"):
        draft_config(inspection, "mine", label="clicks")


def test_codes_identifiers_counts_and_measures_are_distinguished(write):
    rows = "".join(
        f"{i % 2},{i % 3},{10**12 + i * 7919},{5000 + i * 37 % 90},{(i * i) % 61 // (1 + i % 29)},{i * 0.37:.2f}\n"
        for i in range(600)
    )
    inspection = inspect(write("t.csv", "click,kind,request,zone,visits,cost\n" + rows))
    roles = {name: column.role for name, column in inspection.column.items()}
    assert roles == {
        "click": "label", "kind": "categorical", "request": "ignore", "zone": "categorical", "visits": "numeric", "cost": "numeric",
    }  # fmt: skip
    words = "".join(f"{i % 2},user{i}\n" for i in range(600))
    assert inspect(write("u.csv", "click,session\n" + words)).column["session"].role == "ignore"


def test_a_long_file_is_judged_by_its_beginning(write):
    inspection = inspect(write("t.csv", "click,x\n" + "0,a\n1,b\n" * 5000), max_rows=1000)
    assert inspection.rows == 1000
    assert not inspection.complete


def test_a_wide_table_is_judged_by_fewer_rows(write, monkeypatch):
    monkeypatch.setattr("ctrlab.data.tables.inspect.MAX_CELLS", 3000)
    header = ",".join(["click", *(f"f{i}" for i in range(299))])
    rows = "".join(",".join([str(i % 2), *(str(i * j % 5) for j in range(299))]) + "\n" for i in range(60))
    inspection = inspect(write("wide.csv", header + "\n" + rows))
    assert len(inspection.columns) == 300
    assert inspection.rows == 10


def test_fields_of_many_values_get_a_minimum_count(write):
    rows = "".join(f"{i % 2},u{i % 1500},p{i % 10}\n" for i in range(4000))
    config = draft_config(inspect(write("t.csv", "click,user,place\n" + rows)), "mine")
    assert [column.min_count for column in config.columns] == [1, 2, 1]


def test_an_inspection_is_plain_json(write, table):
    import json

    body = json.loads(json.dumps(inspect(write("t.csv", table.write_csv())).to_dict()))
    assert body["columns"][0]["name"] == "click"
    assert body["source"]["delimiter"] == ","


def test_lists_are_distinguished_from_texts_and_times(tmp_path, write):
    words = ["red", "green", "blue", "dark green"]
    rows = [
        {
            "click": i % 2,
            "item": f"i{i % 30}",
            "past": "|".join(f"i{(i * 7 + k) % 30}" for k in range(i % 6)),
            "tags": ";".join(words[(i + k) % 4] for k in range(1 + i % 3)),
            "agent": f"Mozilla/{i % 5} (X11; Linux) Gecko/{i % 3}",
            "place": f"home|{i % 9}",
        }
        for i in range(300)
    ]
    inspection = inspect(write("t.csv", pl.DataFrame(rows).write_csv()))
    found = {name: (column.role, column.separator, column.shares) for name, column in inspection.column.items()}
    assert found["past"] == ("list", "|", "item")
    assert found["tags"] == ("list", ";", None)
    assert found["agent"][0] == found["place"][0] == "categorical"
    assert inspection.column["past"].max_length == 5
    dataset = encode_dataset(draft_config(inspection, "mine"), tmp_path / "encoded")
    assert [(feature.name, feature.shares) for feature in dataset.schema.lists] == [("past", "item"), ("tags", None)]


def test_parquet_lists_are_lists(tmp_path):
    frame = pl.DataFrame({"click": [0, 1] * 20, "past": [["a", "b"], ["c"], [], None] * 10, "none": [[]] * 40})
    frame.write_parquet(tmp_path / "t.parquet")
    inspection = inspect(str(tmp_path / "t.parquet"))
    past, none = inspection.column["past"], inspection.column["none"]
    assert (past.role, past.separator, past.distinct, past.missing_share, past.max_length) == ("list", None, 3, 0.5, 2)
    assert (none.role, none.reason) == ("ignore", "every list is empty")


def test_parquet_is_inspected_like_text(tmp_path, table):
    table.with_columns(pl.col("price").cast(float)).write_parquet(tmp_path / "t.parquet")
    inspection = inspect(str(tmp_path / "t.parquet"))
    assert inspection.source.format == "parquet"
    assert inspection.column["price"].role == "numeric"
