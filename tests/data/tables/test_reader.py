import errno
import gzip
import io

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.data.configs import SourceConfig
from ctrlab.data.tables.faults import read_fault
from ctrlab.data.tables.reader import open_table
from ctrlab.errors import DataError, FileReadError

PACKERS = {"": lambda raw: raw, ".gz": gzip.compress, ".zst": zstandard.compress}


def read(path: str, **source) -> pl.DataFrame:
    reader = open_table(SourceConfig(paths=(path,), **source), block_rows=64)
    return pl.concat(list(reader.blocks()))


def refusal(path: str, *, max_bytes: int | None = None, **source) -> str:
    with pytest.raises(DataError) as caught:
        list(open_table(SourceConfig(paths=(path,), **source), max_bytes=max_bytes).blocks())
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_delimited_text_reads_the_same_whatever_its_compression(write, table, packing, separator):
    path = write(f"table.csv{packing}", PACKERS[packing](table.write_csv(separator=separator).encode()))
    assert read(path).equals(table)


def test_parquet_reads_as_text_whatever_the_types_were(tmp_path):
    frame = pl.DataFrame({"click": [1, 0, 1], "site": ["a", "", None], "price": [0.5, None, 2.0], "new": [True, False, None]})
    frame.write_parquet(tmp_path / "t.parquet")
    texts = read(str(tmp_path / "t.parquet"))
    assert texts.to_dict(as_series=False) == {
        "click": ["1", "0", "1"],
        "site": ["a", None, None],
        "price": ["0.5", None, "2.0"],
        "new": ["true", "false", None],
    }


def test_dictionary_columns_of_parquet_are_texts_too(tmp_path):
    pq.write_table(pa.table({"a": pa.array(["x", "", "x"]).dictionary_encode(), "b": ["1", "2", "3"]}), tmp_path / "t.parquet")
    assert read(str(tmp_path / "t.parquet"))["b"].to_list() == ["1", "2", "3"]
    assert read(str(tmp_path / "t.parquet"))["a"].to_list() == ["x", None, "x"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_blocks_hold_at_most_the_wanted_rows_and_progress_reaches_the_end(tmp_path, table, name):
    path = tmp_path / name
    table.write_csv(path) if name.endswith("csv") else table.write_parquet(path)
    reader = open_table(SourceConfig(paths=(str(path),)), block_rows=64)
    assert [len(block) for block in reader.blocks()] == [64, 64, 64, 8]
    assert reader.bytes_read == reader.total_bytes == path.stat().st_size


def test_only_the_wanted_columns_are_read_in_the_wanted_order(write, table):
    reader = open_table(SourceConfig(paths=(write("t.csv", table.write_csv()),)))
    assert next(reader.blocks(["price", "click"])).equals(table.select("price", "click"))


def test_a_file_without_a_header_gets_numbered_or_given_names(write):
    path = write("t.tsv", "0\t1\tab\n1\t\tcd\n")
    assert read(path).columns == ["column_1", "column_2", "column_3"]
    named = read(path, column_names=("label", "I1", "C1"))
    assert named.to_dict(as_series=False) == {"label": ["0", "1"], "I1": ["1", None], "C1": ["ab", "cd"]}


def test_given_names_equal_to_the_first_line_make_it_the_header(write):
    assert len(read(write("t.csv", "label,x\n1,2\n"), column_names=("label", "x"))) == 1


def test_the_header_can_be_given_instead_of_detected(write):
    path = write("t.csv", "a,b\nc,d\n")
    assert len(read(path)) == 1
    assert len(read(path, header=False)) == 2
    assert read(write("u.csv", "1,2\n3,4\n"), header=True).columns == ["1", "2"]


def test_windows_line_ends_byte_order_marks_quotes_and_blank_lines_do_no_harm(write):
    path = write("t.csv", b'\xef\xbb\xbfclick,"the site"\r\n1,"a,b"\r\n\r\n0,"say ""hi"""\r\n1,"two\r\nlines"\r\n')
    frame = read(path)
    assert frame.columns == ["click", "the site"]
    assert frame["the site"].to_list() == ["a,b", 'say "hi"', "two\r\nlines"]


def test_an_index_column_without_a_name_gets_one(write):
    assert read(write("t.csv", ",click,x\n0,1,a\n1,0,b\n")).columns == ["column_1", "click", "x"]


def test_a_table_of_300_columns_reads(write):
    names = [f"f{i}" for i in range(300)]
    rows = "".join(",".join(str((i * j) % 7) for j in range(300)) + "\n" for i in range(50))
    frame = read(write("wide.csv", ",".join(names) + "\n" + rows))
    assert frame.shape == (50, 300)
    assert frame["f3"][5] == "1"


def test_memory_does_not_grow_with_the_file(write):
    path = write("long.csv", "click,x\n" + "1,some text\n0,other text\n" * 300_000)
    sizes = [block.estimated_size() for block in open_table(SourceConfig(paths=(path,))).blocks()]
    assert len(sizes) > 5
    assert max(sizes) < 4e6


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            *[st.text(st.characters(codec="utf-8", exclude_characters="\0\r\x1a", exclude_categories=("Cs", "Cc")), max_size=6)]
            * 3
        ),
        min_size=1,
        max_size=30,
    )
)
def test_any_table_of_texts_survives_the_way_through_a_file(tmp_path_factory, rows):
    frame = pl.DataFrame(
        {"key": [str(i) for i in range(len(rows))]} | {c: [r[i] or None for r in rows] for i, c in enumerate("abc")}
    )
    path = tmp_path_factory.mktemp("any") / "t.csv"
    frame.write_csv(path, quote_style="non_numeric")
    assert read(str(path), delimiter=",", header=True).equals(frame.cast(pl.String))


def test_a_missing_file_is_named(tmp_path):
    assert "does not exist" in refusal(str(tmp_path / "no.csv"))


def test_a_directory_is_refused(tmp_path):
    assert "is a directory" in refusal(str(tmp_path))


# Fixed ids: gzip's bytes contain the time, and pytest-xdist collects nothing where processes generate different ids.
@pytest.mark.parametrize("content", [b"", b"\n\n", gzip.compress(b"")], ids=["nothing", "blank lines", "nothing, packed"])
def test_an_empty_file_is_refused(write, content):
    assert "is empty" in refusal(write("t.csv", content))


def test_a_header_without_rows_is_refused(write):
    assert "no rows" in refusal(write("t.csv", "click,site\n"))


def test_a_parquet_file_without_rows_is_refused(tmp_path):
    pl.DataFrame({"a": []}, schema={"a": pl.String}).write_parquet(tmp_path / "t.parquet")
    assert "no rows" in refusal(str(tmp_path / "t.parquet"))


def test_a_binary_file_called_csv_is_refused(write):
    assert "binary" in refusal(write("t.csv", np.random.default_rng(0).bytes(5000)))
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100)
    assert "binary" in refusal(write("u.csv", png))


def test_a_damaged_zip_archive_is_refused(write):
    assert "damaged" in refusal(write("t.csv", b"PK\x03\x04" + bytes(50)))


def test_text_in_latin_1_is_read_as_such(write):
    table = open_table(SourceConfig(paths=(write("t.csv", b"click,city\n0,K\xf6ln\n1,Bonn\n"),)))
    assert next(table.blocks())["city"].to_list() == ["Köln", "Bonn"]
    assert table.layout.encoding == "cp1252"


def test_a_line_that_is_not_utf8_far_below_is_repaired_and_named(write):
    table = open_table(SourceConfig(paths=(write("t.csv", b"click,city\n" + b"1,Bonn\n" * 60_000 + b"0,K\xf6ln\n"),)))
    assert list(table.blocks())[-1]["city"][-1] == "Köln"
    assert [note.kind for note in table.notes()] == ["lines: encoding"]
    assert "line 60,002" in table.notes()[0].text


@pytest.mark.parametrize(("row", "cells"), [("1,2\n", "2 cells"), ("1,2,3,4\n", "4 cells")])
def test_a_ragged_row_among_few_is_refused_with_its_line(write, row, cells):
    message = refusal(write("t.csv", "a,b,c\n" + "1,2,3\n" * 10 + row))
    assert f"line 12 has {cells} where 3 are expected, and 1 of 12 lines" in message


@pytest.mark.parametrize(("row", "kind"), [("1,2\n", "few"), ("1,2,3,4\n", "many")])
def test_a_ragged_row_among_many_is_left_out_and_named(write, row, kind):
    table = open_table(SourceConfig(paths=(write("t.csv", "a,b,c\n" + "1,2,3\n" * 500 + row + "1,2,3\n" * 500),)))
    assert sum(map(len, table.blocks())) == 1000
    assert table.lines.reconciled and table.lines.lines == 1002
    (note,) = table.notes()
    assert (note.kind, note.severity) == (f"lines: {kind}", "fault") and "line 502" in note.text


def test_a_header_that_stands_in_the_rows_again_is_skipped_and_counted(write):
    rows = "".join(f"{i % 2},s{i % 5},{i}\n" for i in range(300))
    table = open_table(SourceConfig(paths=(write("joined.csv", ("click,site,x\n" + rows) * 3),)))
    (frame,) = table.blocks()
    assert len(frame) == 900 and "click" not in frame["click"].to_list()
    assert table.lines.counts == {"above": 1, "header again": 2} and table.lines.reconciled
    numbers = open_table(SourceConfig(paths=(write("numbers.csv", "0,1\n" * 4 + "1,1\n"),), header=True))
    assert sum(map(len, numbers.blocks())) == 4


def test_lines_with_cr_alone_and_a_few_line_feeds_are_rows(write):
    rows = "".join(f"{i % 2},s{i % 5}\r" for i in range(300))
    table = open_table(SourceConfig(paths=(write("joined.csv", f"click,site\r{rows}\n{rows}"),)))
    assert sum(map(len, table.blocks())) == 600 and table.lines.reconciled


def test_duplicate_names_are_refused(write, tmp_path):
    assert "columns with equal names (1, 3)" in refusal(write("t.csv", "a,b,a\n1,2,3\n"))


def test_a_file_over_the_cap_is_refused(write):
    path = write("t.csv", "a,b\n" + "1,2\n" * 1000)
    assert "more than the allowed 100 bytes" in refusal(path, max_bytes=100)
    assert len(read(path)) == 1000


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_cut_off_archive_is_refused(write, packing):
    rng = np.random.default_rng(0)
    whole = PACKERS[packing](b"a,b\n" + b"".join(b"%d,1\n" % number for number in rng.integers(0, 10**9, 200_000).tolist()))
    assert "ends too early" in refusal(write(f"t.csv{packing}", whole[: len(whole) // 2]))


def test_damaged_archives_and_parquet_files_are_refused(write, table):
    packed = bytearray(gzip.compress(table.write_csv().encode()))
    packed[20:60] = b"\xff" * 40
    assert "damaged" in refusal(write("t.csv.gz", bytes(packed)))
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    assert "damaged" in refusal(write("t.parquet", buffer.getvalue()[:-50]))


def test_a_file_said_to_be_parquet_must_be(write):
    assert "not a Parquet file" in refusal(write("t.parquet", "a,b\n1,2\n"), format="parquet")


def test_nested_parquet_columns_are_ignored_with_the_reason(tmp_path):
    pl.DataFrame({"a": [[[1, 2]]], "b": [{"x": 1}], "c": [1]}).write_parquet(tmp_path / "t.parquet")
    table = open_table(SourceConfig(paths=(str(tmp_path / "t.parquet"),)))
    assert next(table.blocks()).to_dict(as_series=False) == {"a": [None], "b": [None], "c": ["1"]}
    assert list(table.layout.ignored) == ["a", "b"]
    assert [note.column for note in table.notes()] == ["a", "b"]


def test_elements_of_parquet_lists_are_joined_and_empty_lists_are_null(tmp_path):
    frame = pl.DataFrame({"a": [[1, None, 2], [], None, [3]], "b": [["x|y", ""], ["z"], [], [None]]})
    frame = frame.with_columns(c=pl.Series([["p", "q"], ["p", "p"], ["q", "q"], ["q", "p"]], dtype=pl.Array(pl.Categorical, 2)))
    frame.write_parquet(tmp_path / "t.parquet")
    reader = open_table(SourceConfig(paths=(str(tmp_path / "t.parquet"),)))
    assert reader.layout.list_columns == ("a", "b", "c")
    (block,) = reader.blocks()
    assert block["a"].to_list() == ["1\x1f2", None, None, "3"]
    assert block["b"].to_list() == ["x|y\x1f", "z", None, None]
    assert block["c"].to_list() == ["p\x1fq", "p\x1fp", "q\x1fq", "q\x1fp"]


def test_names_that_do_not_fit_the_file_are_refused(write):
    assert "gives 2 names" in refusal(write("t.csv", "1,2,3\n"), column_names=("a", "b"))


def test_a_quote_that_is_open_at_the_end_of_the_first_line_is_one_sentence(write):
    assert "a quote in the first line is not closed" in refusal(write("t.csv", 'a,"b\nc",d\n1,2,3\n'))


def test_many_equal_names_are_refused_at_once(write):
    assert "columns with equal names (1, 2, 3, 4, 5, 6)" in refusal(
        write("t.csv", ",".join(["a"] * 20_000) + "\n" + "," * 19_999 + "\n"), header=True
    )


def test_an_error_of_the_operating_system_is_told_from_a_damaged_file(tmp_path):
    path = tmp_path / "t.csv"
    assert isinstance(read_fault(path, OSError(errno.EIO, "Input/output error")), FileReadError)
    assert "Input/output error" in str(read_fault(path, OSError(errno.EIO, "Input/output error")))
    damaged = read_fault(path, pa.ArrowInvalid("CSV parse error: Expected 2 columns, got 3: SECRET,1,2"))
    assert type(damaged) is DataError
    assert "SECRET" not in str(damaged)


def test_parquet_columns_without_a_name_or_with_blanks_around_it_are_read(tmp_path):
    columns = {"": ["x", "y"], " site ": ["a", "b"], "tags": [["p"], ["q", "r"]]}
    pq.write_table(pa.table(list(columns.values()), names=list(columns)), tmp_path / "t.parquet")
    frame = read(str(tmp_path / "t.parquet"))
    assert frame.columns == ["column_1", "site", "tags"]
    assert frame["column_1"].to_list() == ["x", "y"] and frame["site"].to_list() == ["a", "b"]


def test_parquet_bytes_that_are_text_are_read_and_others_are_one_sentence(tmp_path):
    pq.write_table(pa.table({"a": pa.array([b"x", b"y"])}), tmp_path / "text.parquet")
    assert read(str(tmp_path / "text.parquet"))["a"].to_list() == ["x", "y"]
    pq.write_table(pa.table({"a": pa.array([b"\xff\xfe\x00", b"y"])}), tmp_path / "bytes.parquet")
    assert "column a holds bytes that are not UTF-8 text" in refusal(str(tmp_path / "bytes.parquet"))
