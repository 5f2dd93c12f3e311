"""Tables as people have them (`tests/data/cases`, 1,200 rows each): the same rows written in many ways, read as the plain ones."""

import json
import tarfile
import zipfile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig, SplitConfig
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.tables.draft import draft_config
from ctrlab.data.tables.inspect import inspect_table
from ctrlab.data.tables.reader import open_readers, open_table
from ctrlab.errors import ConfigError, DataError

CASES = Path(__file__).parents[1] / "cases"
PLAIN = ["click", "site", "price", "hour"]


def rows_of(*paths: Path, **source) -> pl.DataFrame:
    return pl.concat([open_table(SourceConfig(paths=(str(path),), **source)).blocks().__next__() for path in paths])


def plain() -> pl.DataFrame:
    return pl.read_csv(CASES / "plain.csv", infer_schema=False)


def refusal(path: Path, **source) -> str:
    with pytest.raises(DataError) as caught:
        list(open_table(SourceConfig(paths=(str(path),), **source)).blocks())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def encoded(out: Path, *paths: Path, label: str = "click", several=None, **source):
    inspection = inspect_table(SourceConfig(paths=tuple(map(str, paths)), **source))
    return encode_dataset(draft_config(inspection, "case", label=label, several=several), out / "dataset")


def test_t1_a_quote_that_does_not_close_swallows_no_rows(tmp_path):
    frame = rows_of(CASES / "quote_start_tsv.tsv")
    assert len(frame) == 1200 and frame["site"].n_unique() == 20
    assert '"s0 best' in frame["site"].to_list()
    dataset = encoded(tmp_path, CASES / "quote_start_tsv.tsv")
    assert sum(dataset.summary.rows.values()) == 1200
    assert sum(dataset.summary.clicks.values()) == 457


def test_t1_a_stray_quote_in_a_file_with_quotes_is_text_and_named(write):
    rows = [f'{i % 2},"a, {i % 7}",x{i}' for i in range(600)]
    rows[100] = '1,"unclosed,x'
    table = open_table(SourceConfig(paths=(write("t.csv", "click,site,who\n" + "\n".join(rows) + "\n"),)))
    frame = pl.concat(list(table.blocks()))
    assert len(frame) == 600 and frame["site"][100] == '"unclosed' and frame["site"][101] == "a, 3"
    assert [note.kind for note in table.notes()] == ["lines: stray quote"]
    assert table.lines.reconciled and "line 102" in table.notes()[0].text


def test_t1_line_feeds_inside_quotes_still_belong_to_a_cell(write):
    rows = [f'{i % 2},"two\nlines {i}",x' if i % 3 else f'{i % 2},"",x' for i in range(300)]
    table = open_table(SourceConfig(paths=(write("t.csv", "click,site,who\n" + "\n".join(rows) + "\n"),)))
    frame = pl.concat(list(table.blocks()))
    assert len(frame) == 300 and frame["site"][1] == "two\nlines 1" and frame["site"][0] is None
    assert table.lines.reconciled and table.lines.lines == 501 and not table.notes()


def test_t1_quotes_can_be_said_to_be_text(write):
    path = write("t.csv", 'click,site\n1,"a"\n0,"b"\n')
    assert rows_of(Path(path), quote="none")["site"].to_list() == ['"a"', '"b"']
    assert rows_of(Path(write("u.csv", "click,site\n1,'a,b'\n0,'c'\n")), quote="'")["site"].to_list() == ["a,b", "c"]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("hdr_numbers.csv", ["0", "1", "2", "3"]),
        ("hdr_label_numbers.csv", ["label", "0", "1", "2"]),
        ("hdr_years.csv", ["click", "2019", "2020", "2021"]),
        ("hdr_trailing.csv", [*PLAIN, "column_5"]),
    ],
)
def test_t4_numbers_years_and_an_empty_last_name_can_be_column_names(name, names):
    inspection = inspect_table(SourceConfig(paths=(str(CASES / name),)))
    assert [column.name for column in inspection.columns] == names
    assert inspection.rows == 1200 and inspection.source.header is True
    if name == "hdr_trailing.csv":
        assert inspection.column["column_5"].role == "ignore"


@pytest.mark.parametrize(
    ("first", "row", "header"),
    [
        ("1,a,3.5", "0,b,1.25", False),
        ("0,17,1", "1,12,0", False),
        ("day,1,2,3", "2024-01-01,4,0,1", True),
        ("a,b", "a,c", False),
        ("user,item", "u1,i1", True),
        ("x1,x2,x3", "1,NA,2", True),
        ("1,NA,3", "0,2,5", False),
    ],
)
def test_t4_a_header_is_told_from_a_row_by_the_rows_below_it(write, first, row, header):
    assert open_table(SourceConfig(paths=(write("t.csv", f"{first}\n" + f"{row}\n" * 20),))).layout.header is header


def test_t4_row_names_and_delimiters_at_the_ends_of_rows_get_a_column(write):
    row_names = "click,x\n" + "".join(f"{i},{i % 2},s{i}\n" for i in range(20))
    assert open_table(SourceConfig(paths=(write("r.csv", row_names),))).column_names == ("column_1", "click", "x")
    ends = "click,x\n" + "".join(f"{i % 2},s{i},\n" for i in range(20))
    assert open_table(SourceConfig(paths=(write("e.csv", ends),))).column_names == ("click", "x", "column_3")


def test_t7_parquet_names_with_blanks_are_read(tmp_path):
    dataset = encoded(tmp_path, CASES / "pq_names.parquet")
    assert sum(dataset.summary.rows.values()) == 1200 and sum(dataset.summary.clicks.values()) == 457


def test_t8_odd_types_of_parquet_are_values_or_ignored(tmp_path):
    inspection = inspect_table(SourceConfig(paths=(str(CASES / "pq_types.parquet"),)))
    distinct = {column.name: column.distinct for column in inspection.columns}
    assert inspection.rows == 1200 and distinct["dur"] == 24 and distinct["bool"] == 2 and distinct["u64"] == 60
    assert [distinct[name] for name in ("cat", "intcat", "f16")] == [12, 12, 12]
    assert (
        inspection.column["dec"].role == "numeric"
        and inspection.column["ts"].role == inspection.column["tstz"].role == "timestamp"
    )


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "ctrl_a.txt", "sep_line.csv", "preamble.csv", "preamble_title.csv", "parts", "dac.tar.gz", "t.csv.bz2", "t.csv.xz"])  # fmt: skip
def test_t13_to_t17_the_same_rows_written_another_way_are_read_as_plain(name):
    table = open_table(SourceConfig(paths=(str(CASES / name),)))
    numbers = [frame.with_columns(pl.col("price").cast(pl.Float64)) for frame in (pl.concat(list(table.blocks())), plain())]
    assert numbers[0].equals(numbers[1])
    assert table.lines.reconciled


def test_t13_libsvm_and_libffm_are_read_as_columns(tmp_path):
    svm = open_table(SourceConfig(paths=(str(CASES / "t.libsvm"),)))
    assert svm.column_names == ("label", "features", "f90") and svm.layout.list_columns == ("features",)
    first = next(svm.blocks()).row(0)
    assert first == ("0", "11\x1f61", "614.17")
    ffm = next(open_table(SourceConfig(paths=(str(CASES / "t.libffm"),))).blocks())
    assert ffm.columns == ["label", "field_0", "field_1", "field_2"] and ffm.row(0) == ("0", "11", "61", "614.17")
    assert sum(encoded(tmp_path, CASES / "t.libsvm", label="label").summary.rows.values()) == 1200


def test_t13_nested_values_of_json_are_ignored_and_broken_lines_are_named(write):
    lines = [json.dumps({"click": i % 2, "who": {"age": i}, "tags": ["a", "b"], "site": f"s{i}"}) for i in range(200)]
    table = open_table(SourceConfig(paths=(write("t.jsonl", "\n".join([*lines, '{"click": 1, "si'])),)))
    frame = pl.concat(list(table.blocks()))
    assert len(frame) == 200 and frame["tags"][0] == "a\x1fb" and frame["who"].null_count() == 200
    assert {note.kind for note in table.notes()} == {"lines: unreadable", "unreadable column"}
    assert table.lines.reconciled and table.lines.lines == 201


def test_t14_delimiters_of_one_or_more_characters_are_found_or_given(tmp_path):
    for number, delimiter in enumerate(["\x01", "::", "||", "~", "^", "\x1f", " ", ";;", "¦"]):
        path = tmp_path / f"t{number}.txt"
        path.write_text((CASES / "plain.csv").read_text().replace(",", delimiter))
        assert rows_of(path).equals(plain()), delimiter
        given = {"\x01": r"\x01", " ": "blanks"}.get(delimiter, delimiter)
        assert rows_of(path, delimiter=given).equals(plain()), delimiter


def test_t15_lines_to_skip_and_comments_can_be_said(write):
    path = Path(write("t.csv", "a,b,c,d,e,f\nmore\nclick,site\n1,a\n% note\n0,b\n1,c\n0,d\n1,e\n"))
    assert "lines to skip" in refusal(path)
    assert rows_of(path, skip_lines=2, comment="%")["site"].to_list() == ["a", "b", "c", "d", "e"]


def test_t16_folders_become_columns_and_several_paths_are_parts_or_splits(tmp_path):
    hive = inspect_table(SourceConfig(paths=(str(CASES / "hive"),)))
    assert hive.rows == 1200 and hive.column["day"].distinct == 5 and hive.column["site"].distinct == 12
    parts = sorted((CASES / "parts").glob("*.csv"))[:3]
    table = encoded(tmp_path / "a", *parts, several="table")
    assert sum(table.summary.rows.values()) == 600 and table.summary.rows["train"] != 200
    splits = encoded(tmp_path / "b", *parts, several="splits")
    assert splits.summary.rows == {"train": 200, "valid": 200, "test": 200}
    assert pl.concat(list(open_table(SourceConfig(paths=(str(CASES / "parts" / "part-*.csv"),))).blocks())).equals(plain())


def test_t16_encoding_a_partition_gives_its_column_ids(tmp_path):
    columns = (ColumnConfig(name="click", role="label"), ColumnConfig(name="day", role="categorical"))
    for name, maker in (("p", "parquet"), ("c", "csv")):
        for day in ("1", "2", "3"):
            folder = tmp_path / name / f"day={day}"
            folder.mkdir(parents=True)
            frame = plain().head(100)
            frame.write_csv(folder / "x.csv") if maker == "csv" else frame.write_parquet(folder / "x.parquet")
        config = DatasetConfig(
            name=name, source=SourceConfig(paths=(str(tmp_path / name),)), columns=columns, split=SplitConfig(method="stratified")
        )
        dataset = encode_dataset(config, tmp_path / f"{name}.out")
        assert dataset.schema.field_dims == (5,) and sum(dataset.summary.rows.values()) == 300


def test_t16_a_part_with_other_columns_is_a_sentence(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.csv").write_text("click,site\n" + "1,a\n0,b\n" * 5)
    (tmp_path / "p" / "b.csv").write_text("site,click\n" + "a,1\nb,0\n" * 5)
    assert rows_of(tmp_path / "p")["site"].to_list() == ["a", "b"] * 5
    (tmp_path / "p" / "c.csv").write_text("click,place\n" + "1,a\n0,b\n" * 5)
    assert "c.csv" in refusal(tmp_path / "p") and "has no column site" in refusal(tmp_path / "p")


def test_t16_parts_without_a_header_but_the_first_are_read(tmp_path):
    (tmp_path / "part-0").write_text("click,site\n" + "1,a\n0,b\n" * 5)
    (tmp_path / "part-1").write_text("1,a\n0,b\n" * 5)
    assert sum(map(len, open_table(SourceConfig(paths=(str(tmp_path),))).blocks())) == 20


def test_t16_a_split_by_files_takes_at_most_four_paths():
    columns = (ColumnConfig(name="click", role="label"), ColumnConfig(name="site", role="categorical"))
    with pytest.raises(ConfigError, match="needs 2 to 4 paths"):
        DatasetConfig(name="x", source=SourceConfig(paths=("a",) * 5), columns=columns, split=SplitConfig(method="files"))


def test_t17_an_archive_of_several_tables_is_a_question(tmp_path):
    text = (CASES / "plain.csv").read_bytes()
    (tmp_path / "train.txt").write_bytes(text)
    (tmp_path / "readme.txt").write_text("about")
    with tarfile.open(tmp_path / "two.tgz", "w:gz") as tar:
        for member in ("train.txt", "test.txt", "readme.txt"):
            tar.add(tmp_path / ("readme.txt" if member == "readme.txt" else "train.txt"), member)
    with zipfile.ZipFile(tmp_path / "one.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "train.txt", "data/train.txt")
        archive.write(tmp_path / "readme.txt", "readme.txt")
    assert "two.tgz/train.txt" in refusal(tmp_path / "two.tgz")
    assert rows_of(tmp_path / "two.tgz" / "test.txt").equals(plain())
    assert "holds no file x.csv" in refusal(tmp_path / "two.tgz" / "x.csv")
    assert rows_of(tmp_path / "one.zip").equals(plain())


def test_t17_files_that_are_no_tables_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
        archive.writestr("xl/workbook.xml", "<x/>")
    assert "Excel workbook" in refusal(tmp_path / "book.xlsx")
    for content, said in (
        (b"SQLite format 3\0" + bytes(100), "SQLite"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    ):
        (tmp_path / "x").write_bytes(content)
        assert said in refusal(tmp_path / "x")


@pytest.mark.parametrize("name", ["pq_struct.parquet", "pq_map.parquet"])
def test_t18_one_nested_column_is_ignored_with_the_reason(tmp_path, name):
    dataset = encoded(tmp_path, CASES / name)
    assert sum(dataset.summary.rows.values()) == 1200
    (note,) = [note for note in dataset.summary.notes if note.kind == "unreadable column"]
    assert note.column in ("ctx", "kv") and "holds records" in note.text


def test_t18_feather_and_orc_are_read_like_parquet(tmp_path):
    table = pa.Table.from_pandas(plain().to_pandas()).cast(pa.schema([(name, pa.string()) for name in PLAIN]))
    pq.write_table(table, tmp_path / "t.parquet")
    feather.write_feather(table, tmp_path / "t.feather")
    orc.write_table(table, tmp_path / "t.orc")
    for name in ("t.parquet", "t.feather", "t.orc"):
        assert rows_of(tmp_path / name).equals(plain()), name
        (reader,) = open_readers(SourceConfig(paths=(str(tmp_path / name),)))
        assert pl.concat(list(reader.blocks(["hour"], start_row=1000)))["hour"].to_list() == plain()["hour"].to_list()[1000:], (
            name
        )


def test_t20_names_that_do_not_fit_a_file_with_another_delimiter_say_so(write):
    path = Path(write("t.csv", "label,I1,C1\n" + "1,2,a\n0,3,b\n" * 10))
    message = refusal(path, delimiter="\t", column_names=("label", "I1", "C1"))
    assert "divided by ','" in message and "has a header" in message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "gb18030", "shift_jis", "euc_kr", "cp1251"])  # fmt: skip
def test_texts_in_other_encodings_are_read(tmp_path, encoding):
    word = {
        "gb18030": "北京市中心广场",
        "shift_jis": "東京タワーの広告です",
        "euc_kr": "서울특별시의 광고입니다",
        "cp1251": "Москва реклама",
    }
    city = word.get(encoding, "Köln")
    text = "click,city\r\n" + "".join(f"{i % 2},{city}\r\n" for i in range(200))
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert set(rows_of(tmp_path / "t.csv")["city"]) == {city}
    assert set(rows_of(tmp_path / "t.csv", encoding=encoding)["city"]) == {city}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_are_read(tmp_path, end):
    (tmp_path / "t.csv").write_bytes((CASES / "plain.csv").read_bytes().replace(b"\n", end.encode()))
    assert rows_of(tmp_path / "t.csv").equals(plain())


def test_the_detected_source_reads_the_same_table():
    for path in CASES.iterdir():
        inspection = inspect_table(SourceConfig(paths=(str(path),)))
        if path.suffix in (".csv", ".tsv", ".txt") or path.name == "parts":
            first, again = (next(open_table(source).blocks()) for source in (SourceConfig(paths=(str(path),)), inspection.source))
            assert first.equals(again), path.name
            assert SourceConfig.from_json(inspection.source.to_json()) == inspection.source
