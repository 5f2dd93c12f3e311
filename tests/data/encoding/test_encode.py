import signal
from collections import Counter

import numpy as np
import polars as pl
import pytest

from ctrlab.data.configs import ColumnConfig, SourceConfig, SplitConfig
from ctrlab.data.dataset import EncodedDataset
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.errors import ConfigError, CtrlabError, DataError, JobCancelled, UnknownNameError
from tests.support.killed import exit_code_of_killed_encoding


@pytest.fixture
def csv(write, table):
    return write("table.csv", table.write_csv())


def refusal(config, tmp_path) -> str:
    with pytest.raises(CtrlabError) as caught:
        encode_dataset(config, tmp_path / "encoded")
    assert not list(tmp_path.glob("encoded*")), "something was left behind"
    message = str(caught.value)
    assert "\n" not in message
    return message


def rows_of(dataset: EncodedDataset, split: str) -> list[tuple]:
    part = dataset.split(split)
    return [
        (*ids, *values, label)
        for ids, values, label in zip(part.ids.tolist(), part.values.tolist(), part.labels.tolist(), strict=True)
    ]


def test_a_dataset_holds_what_its_encoder_gives_for_its_rows(csv, table, config_for, tmp_path):
    dataset = encode_dataset(config_for(csv), tmp_path / "encoded")
    everything = FieldEncoder.load(dataset.path).transform(table)
    expected = zip(everything.ids.tolist(), everything.values.tolist(), table["click"].cast(int).to_list(), strict=True)
    assert Counter((*ids, *values, label) for ids, values, label in expected) == Counter(
        row for split in dataset.splits for row in rows_of(dataset, split)
    )


def test_arrays_are_mapped_with_the_promised_types(csv, config_for, tmp_path):
    dataset = encode_dataset(config_for(csv), tmp_path / "encoded")
    assert dataset.schema.field_names == ("site", "rare", "when_hour", "when_weekday")
    assert dataset.schema.value_names == ("price",)
    for name in dataset.splits:
        split = dataset.split(name)
        assert all(isinstance(array, np.memmap) for array in (split.ids, split.values, split.labels))
        assert (split.ids.dtype, split.values.dtype, split.labels.dtype) == (np.int32, np.float32, np.uint8)
        assert split.ids.shape == (dataset.num_rows(name), 4)
        assert split.values.shape == (len(split), 1)
        assert (split.ids.max(axis=0) < dataset.schema.field_dims).all()


def test_counts_are_those_of_the_training_rows(csv, config_for, tmp_path):
    dataset = encode_dataset(config_for(csv), tmp_path / "encoded")
    for field, dim in enumerate(dataset.schema.field_dims):
        np.testing.assert_array_equal(dataset.counts(field), np.bincount(dataset.split("train").ids[:, field], minlength=dim))


def test_the_summary_counts_what_is_there(csv, table, config_for, tmp_path):
    dataset = encode_dataset(config_for(csv), tmp_path / "encoded")
    summary = dataset.summary
    assert sum(summary.rows.values()) == len(table)
    for name in dataset.splits:
        assert summary.ctr[name] == pytest.approx(dataset.split(name).labels.mean())
    by_name = {field.name: field for field in summary.fields}
    assert list(by_name) == ["site", "rare", "price", "when_hour", "when_weekday"]
    train, others = dataset.split("train"), [dataset.split(name) for name in ("valid", "test")]
    assert by_name["site"].cardinality == 7
    assert by_name["site"].missing_share == pytest.approx((train.ids[:, 0] == 1).mean())
    assert by_name["rare"].oov_share == pytest.approx((np.concatenate([part.ids[:, 1] for part in others]) == 0).mean())
    assert by_name["site"].head_share == pytest.approx(dataset.counts(0)[2:].max() / len(train))
    assert 0 < by_name["price"].missing_share < 0.2
    assert type(summary).from_dict(summary.to_dict()) == summary


@pytest.mark.parametrize("method", ["random", "stratified", "time"])
def test_validation_rows_never_reach_the_vocabulary_or_the_statistics(write, config_for, tmp_path, method):
    """Rows outside the training part are replaced by other values: what was fitted must stay the same."""
    rows = pl.DataFrame(
        {
            "click": [str(i % 2) for i in range(400)],
            "site": [f"s{i % 5}" for i in range(400)],
            "rare": ["x"] * 400,
            "price": [str(i) for i in range(400)],
            "when": [f"2024-03-{1 + i // 24:02d} {i % 24:02d}:00:00" for i in range(400)],
        }
    )
    split = SplitConfig(method=method, train=0.5, valid=0.2, test=0.2, finetune=0.1, time_column="when", seed=3)
    first = encode_dataset(config_for(write("a.csv", rows.write_csv()), split=split), tmp_path / "first")
    mean, std = (FieldEncoder.load(first.path).fields[2].state()[key] for key in ("mean", "std"))
    train = {round(x * std + mean) for x in first.split("train").values[:, 0].tolist()}
    assert len(train) == first.num_rows("train")
    poison = ~pl.col("price").cast(int).is_in(sorted(train))
    poisoned = rows.with_columns(site=pl.when(poison).then(pl.lit("never trained on")).otherwise("site"))
    poisoned = poisoned.with_columns(price=pl.when(poison).then(pl.lit("1000000")).otherwise("price"))
    second = encode_dataset(config_for(write("b.csv", poisoned.write_csv()), split=split), tmp_path / "second")
    assert second.schema == first.schema
    assert rows_of(second, "train") == rows_of(first, "train")
    assert all((second.split(name).ids[:, 0] == 0).all() for name in ("valid", "test", "finetune"))


def test_a_split_by_time_trains_on_the_oldest_rows(csv, table, config_for, tmp_path):
    split = SplitConfig(method="time", time_column="when", train=0.5, valid=0.25, test=0.25)
    columns = (*config_for(csv).columns[:2], ColumnConfig(name="price", role="numeric"))
    dataset = encode_dataset(config_for(csv, split=split, columns=columns), tmp_path / "encoded")
    assert dataset.summary.rows == {"train": 100, "valid": 50, "test": 50}
    assert dataset.split("train").labels.tolist() == table["click"][:100].cast(int).to_list()
    assert dataset.split("test").labels.tolist() == table["click"][150:].cast(int).to_list()


def test_a_split_by_time_takes_plain_numbers_too(write, config_for, tmp_path):
    path = write("t.csv", "click,day,x\n" + "".join(f"{i % 2},{i % 10},a\n" for i in range(100)))
    columns = (ColumnConfig(name="click", role="label"), ColumnConfig(name="x", role="categorical"))
    split = SplitConfig(method="time", time_column="day", train=0.6, valid=0.2, test=0.2)
    with pytest.raises(DataError, match="one class only"):
        encode_dataset(
            config_for(
                write("u.csv", "click,day,x\n" + "".join(f"{i // 50},{i},a\n" for i in range(100))), columns=columns, split=split
            ),
            tmp_path / "u",
        )
    dataset = encode_dataset(config_for(path, columns=columns, split=split), tmp_path / "encoded")
    assert dataset.summary.rows == {"train": 60, "valid": 20, "test": 20}


def test_files_that_are_already_split_stay_so(write, table, config_for, tmp_path):
    paths = [
        write(f"{name}.csv", rows.write_csv()) for name, rows in (("a", table[:100]), ("b", table[100:160]), ("c", table[160:]))
    ]
    dataset = encode_dataset(config_for(paths), tmp_path / "encoded")
    assert dataset.summary.rows == {"train": 100, "valid": 60, "test": 40}
    assert dataset.split("valid").labels.tolist() == table["click"][100:160].cast(int).to_list()


def test_the_same_settings_give_the_same_bytes(csv, config_for, tmp_path):
    folders = [encode_dataset(config_for(csv), tmp_path / name).path for name in ("first", "second")]
    names = sorted(file.name for file in folders[0].iterdir())
    assert names == sorted(file.name for file in folders[1].iterdir())
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in names)


def test_every_format_gives_the_same_dataset(csv, table, config_for, tmp_path):
    table.write_parquet(tmp_path / "t.parquet")
    first = encode_dataset(config_for(csv), tmp_path / "first")
    second = encode_dataset(config_for(str(tmp_path / "t.parquet")), tmp_path / "second")
    assert second.schema == first.schema
    assert all(rows_of(second, name) == rows_of(first, name) for name in first.splits)


def test_a_dataset_may_have_only_numbers_or_only_categories(csv, config_for, tmp_path):
    label, site, _, price, _ = config_for(csv).columns
    numbers = encode_dataset(config_for(csv, columns=(label, price)), tmp_path / "numbers")
    assert numbers.split("train").ids.shape == (numbers.num_rows("train"), 0)
    categories = encode_dataset(config_for(csv, columns=(label, site)), tmp_path / "categories")
    assert categories.split("train").values.shape == (categories.num_rows("train"), 0)


def test_a_300_column_file_works(write, config_for, tmp_path):
    header = ",".join(["click", *(f"f{i}" for i in range(299))])
    rows = "".join(",".join([str(i % 2), *(str(i * j % 5) for j in range(299))]) + "\n" for i in range(60))
    columns = (ColumnConfig(name="click", role="label"), *(ColumnConfig(name=f"f{i}", role="categorical") for i in range(299)))
    dataset = encode_dataset(config_for(write("wide.csv", header + "\n" + rows), columns=columns), tmp_path / "encoded")
    assert dataset.split("train").ids.shape[1] == 299


def test_a_finished_dataset_is_opened_and_not_encoded_again(csv, config_for, tmp_path):
    made = encode_dataset(config_for(csv), tmp_path / "encoded")
    stamp = (made.path / "train.ids.npy").stat().st_mtime_ns
    assert encode_dataset(config_for(csv), tmp_path / "encoded").schema == made.schema
    assert (made.path / "train.ids.npy").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="other settings"):
        encode_dataset(config_for(csv, name="another"), tmp_path / "encoded")


def test_progress_rises_to_one_with_a_message(csv, config_for, tmp_path):
    seen = []
    encode_dataset(config_for(csv), tmp_path / "encoded", on_progress=lambda fraction, message: seen.append((fraction, message)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert all(message for _, message in seen)


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_cancelling_leaves_nothing_behind(csv, config_for, tmp_path, after):
    answers = iter([False] * after + [True] * 99)
    with pytest.raises(JobCancelled):
        encode_dataset(config_for(csv), tmp_path / "encoded", should_stop=lambda: next(answers))
    assert not list(tmp_path.glob("encoded*"))


@pytest.mark.parametrize("call", [1, 3])
def test_a_killed_process_leaves_no_dataset_and_the_next_one_makes_it(csv, config_for, tmp_path, call):
    assert exit_code_of_killed_encoding(config_for(csv), str(tmp_path / "encoded"), call) == -signal.SIGKILL
    assert (tmp_path / "encoded.partial").is_dir()
    assert not (tmp_path / "encoded").exists()
    dataset = encode_dataset(config_for(csv), tmp_path / "encoded")
    assert sum(dataset.summary.rows.values()) == 200
    assert [path.name for path in tmp_path.glob("encoded*")] == ["encoded"]


def test_a_missing_label_column_is_named_with_the_columns_there_are(write, config_for, tmp_path):
    message = refusal(config_for(write("t.csv", "site,rare,price,when\na,b,1,2024-01-01\n")), tmp_path)
    assert "no label column 'click'" in message
    assert "site, rare, price, when" in message


def test_a_missing_feature_column_is_named(write, config_for, tmp_path):
    assert "no column price, when" in refusal(config_for(write("t.csv", "click,site,rare\n1,a,b\n")), tmp_path)


def test_a_second_file_with_other_columns_is_refused(write, table, config_for, tmp_path):
    paths = [write("a.csv", table.write_csv()), write("b.csv", table.drop("rare").write_csv())]
    assert "b.csv has no column rare" in refusal(config_for(paths), tmp_path)


def test_a_label_with_three_values_is_refused(csv, config_for, write, table, tmp_path):
    three = table.with_columns(click=pl.Series([str(i % 3) for i in range(200)]))
    assert "3 different values (0, 1, 2)" in refusal(config_for(write("t.csv", three.write_csv())), tmp_path)


def test_a_label_of_one_class_is_refused(write, table, config_for, tmp_path):
    path = write("t.csv", table.with_columns(click=pl.lit("0")).write_csv())
    assert "one class only, 0 in all 200 rows" in refusal(config_for(path), tmp_path)


def test_a_split_of_one_class_is_refused_with_advice(write, table, config_for, tmp_path):
    clicks = pl.Series(["1"] * 100 + ["0"] * 100)
    split = SplitConfig(method="time", time_column="when", train=0.75, valid=0.125, test=0.125)
    path = write("t.csv", table.with_columns(click=clicks).write_csv())
    message = refusal(config_for(path, split=split), tmp_path)
    assert "the valid split has one class only, 0" in message
    assert "stratified" in message


def test_test_rows_of_one_class_are_accepted_since_they_still_have_a_log_loss(write, table, config_for, tmp_path):
    clicks = pl.Series(["1", "0"] * 80 + ["0"] * 40)
    split = SplitConfig(method="time", time_column="when", train=0.6, valid=0.2, test=0.2)
    path = write("t.csv", table.with_columns(click=clicks).write_csv())
    dataset = encode_dataset(config_for(path, split=split), tmp_path / "encoded")
    assert dataset.summary.ctr["test"] == 0 and len(dataset.split("test")) > 0


def test_a_split_without_rows_is_refused(write, config_for, tmp_path):
    path = write("t.csv", "click,site\n1,a\n0,b\n1,a\n0,b\n")
    columns = (ColumnConfig(name="click", role="label"), ColumnConfig(name="site", role="categorical"))
    split = SplitConfig(train=0.998, valid=0.001, test=0.001)
    assert "none of the 4 rows" in refusal(config_for(path, columns=columns, split=split), tmp_path)


def test_an_empty_label_is_refused(write, table, config_for, tmp_path):
    clicks = pl.Series(["1", None] + ["0"] * 198)
    assert "empty in data row 2" in refusal(config_for(write("t.csv", table.with_columns(click=clicks).write_csv())), tmp_path)


def test_a_row_without_a_time_is_refused_in_a_split_by_time(write, table, config_for, tmp_path):
    times = table["when"].set(pl.Series([i == 7 for i in range(200)]), None)
    path = write("t.csv", table.with_columns(when=times).write_csv())
    split = SplitConfig(method="time", time_column="when")
    assert "no readable time in data row 8" in refusal(config_for(path, split=split), tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (bytes(range(256)) * 20, "binary"),
        (b"click,site,rare,price,when\n1,a,b,1,2024-01-01\n0,a\n", "line 3 has 2 cells"),
        (b"click,site,rare,price,when\n", "no rows"),
    ],
)
def test_files_that_cannot_be_read_are_refused_in_one_sentence(write, config_for, tmp_path, content, said):
    assert said in refusal(config_for(write("t.csv", content)), tmp_path)


def test_a_fault_deep_in_the_file_leaves_nothing_behind(write, table, config_for, tmp_path):
    rows = table.write_csv(include_header=False)
    path = write("t.csv", table.write_csv() + rows * 2000 + "1,too,short\n" * 8000)
    assert "line 400202 has 3 cells where 5 are expected" in refusal(config_for(path), tmp_path)


def test_a_row_that_was_left_out_deep_in_the_file_is_in_the_notes(write, table, config_for, tmp_path):
    rows = table.write_csv(include_header=False)
    dataset = encode_dataset(
        config_for(write("t.csv", table.write_csv() + rows * 500 + "1,too,short\n" + rows)), tmp_path / "out"
    )
    assert sum(dataset.summary.rows.values()) == 200 * 502
    (note,) = dataset.summary.notes
    assert note.kind == "lines: few" and "line 100,202" in note.text


def test_a_file_over_the_cap_is_refused(csv, config_for, tmp_path):
    with pytest.raises(DataError, match="more than the allowed 10 bytes"):
        encode_dataset(config_for(csv), tmp_path / "encoded", max_bytes=10)


def test_a_path_that_does_not_exist_is_refused(config_for, tmp_path):
    assert "does not exist" in refusal(config_for(str(tmp_path / "nowhere.csv")), tmp_path)


def test_impossible_settings_are_refused_all_at_once(config_for):
    with pytest.raises(ConfigError) as caught:
        config_for(
            "x",
            columns=(ColumnConfig(name="a", role="ignore"), ColumnConfig(name="a", role="ignore")),
            source=SourceConfig(paths=("x", "y")),
        )
    assert all(
        said in str(caught.value) for said in ("label", "no column is left", "lists a more than once", "no column is left")
    )
    with pytest.raises(ConfigError, match=r"must add up to 1, got 1\.1"):
        SplitConfig(train=0.9)


def test_a_config_survives_json(csv, config_for):
    config = config_for(csv)
    assert type(config).from_json(config.to_json()) == config


def test_unknown_splits_and_damaged_datasets_are_named(csv, config_for, tmp_path):
    dataset = encode_dataset(config_for(csv), tmp_path / "encoded")
    with pytest.raises(UnknownNameError, match="it has train, valid, test"):
        dataset.split("finetune")
    (dataset.path / "test.ids.npy").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"test\.ids\.npy"):
        dataset.split("test")
    (dataset.path / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match="format None"):
        EncodedDataset.open(dataset.path)
    with pytest.raises(DataError, match="no encoded dataset"):
        EncodedDataset.open(tmp_path)


def test_a_part_of_blank_lines_alone_is_no_obstacle(write, table, config_for, tmp_path):
    path = write("t.csv", table.write_csv() + "\n" * (5 << 20))
    dataset = encode_dataset(config_for(path), tmp_path / "out")
    assert sum(dataset.summary.rows.values()) == 200
    assert [note.kind for note in dataset.summary.notes] == ["lines: blank"]
