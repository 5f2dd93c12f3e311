"""The compiled splitting of text against Python's, cell by cell."""

import gzip
from itertools import chain

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.data.configs import ColumnConfig, SourceConfig
from ctrlab.data.encoding import parsing
from ctrlab.data.encoding.encoder import FieldEncoder
from ctrlab.data.encoding.parsing import _FrameParser, _TextParser, parse_rounds
from ctrlab.data.tables.reader import open_readers, open_table
from ctrlab.errors import DataError

COLUMNS = (
    ColumnConfig(name="word", role="categorical"),
    ColumnConfig(name="x", role="numeric"),
    ColumnConfig(name="count", role="numeric", transform="criteo"),
    ColumnConfig(name="both", role="categorical"),
    ColumnConfig(name="tags", role="list", separator="|", max_length=2),
)
NAMES = ("word", "x", "unused", "count", "both", "tags")
WORDS = st.sampled_from(
    [
        "",
        "a",
        "12345678",
        "123456789",
        "ä",
        "ääääa",
        "1234567é",
        "a b",
        "a longer text than that",
        "\x7f",
        " a",
        "a\xa0",
        "N/A",
        "(null)",
        "12.0",
        "123456789.00",
        "null and",
    ]
)
NUMBERS = st.one_of(
    st.sampled_from(
        [
            "",
            "0",
            "-0",
            "007",
            "1.5",
            ".5",
            "5.",
            "-",
            "1e5",
            "+3",
            " 4",
            "4 ",
            " -2.5  ",
            "  ",
            "NA",
            "x",
            "1.2.3",
            "inf",
            "--1",
            "1" * 16,
        ]
    ),
    st.integers(-(10**18), 10**18).map(str),
    st.floats(-1e6, 1e6).map(repr),
)
ROW = st.tuples(WORDS, NUMBERS, WORDS, NUMBERS, WORDS, st.lists(WORDS, max_size=3).map("|".join))


def cells_of(parsed, encoder):
    return [
        {
            field.name: (
                column.cells.tolist() if column.cells.dtype != float else column.cells.view(np.uint64).tolist(),
                column.unreadable,
            )
            for field, column in zip(encoder.fields, parsed.columns, strict=True)
        },
        {name: series.to_list() for name, series in parsed.texts.items()},
        {
            field.name: set() if column.texts is None else set(column.texts.iter_rows())
            for field, column in zip(encoder.fields, parsed.columns, strict=True)
        },
    ]


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=8), end=st.sampled_from(["\n", "\r\n"]), last=st.booleans(), blank=st.booleans())
def test_split_cells_are_those_that_python_gives(tmp_path_factory, rows, end, last, blank):
    path = tmp_path_factory.getbasetemp() / "cells.tsv"
    lines = ["\t".join(row) for row in rows]
    path.write_bytes(("\t".join(NAMES) + "\n" + "a\t1\tb\t2\tc\td\n").encode())
    reader, encoder = open_table(SourceConfig(paths=(str(path),))), FieldEncoder.for_columns(COLUMNS)
    chunk = ((end + end if blank else end).join(lines) + (end if last else "")).encode()
    (first,) = reader.readers
    split = _TextParser(first, encoder, ["both"]).parse(chunk)
    frame = pl.DataFrame([[cell or None for cell in row] for row in rows], schema=dict.fromkeys(NAMES, pl.String), orient="row")
    by_python = _FrameParser(first, encoder, ["both"]).parse(frame)
    assert split.lines.reconciled and split.lines.rows == len(rows)
    assert cells_of(split, encoder) == cells_of(by_python, encoder)


@pytest.mark.parametrize("packed", [False, True])
def test_rounds_of_any_size_and_beginning_hold_all_rows_in_order(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(parsing, "CHUNK_BYTES", 200)
    text = "click\tword\n" + "".join(f"{i % 2}\tw{i}\n" for i in range(300))
    path = tmp_path / "t.tsv"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    (reader,) = open_readers(SourceConfig(paths=(str(path),), format="tsv"))
    encoder = FieldEncoder.for_columns([ColumnConfig(name="word", role="categorical")])
    rounds = list(parse_rounds(reader, encoder, ["word"]))
    words = [[word for block in one.blocks for word in block.texts["word"]] for one in rounds]
    assert list(chain(*words)) == [f"w{i}" for i in range(300)]
    assert len(rounds) > 3
    for number in (0, 1, len(rounds) - 2):
        again = parse_rounds(reader, encoder, ["word"], rounds[number].position)
        assert [word for one in again for block in one.blocks for word in block.texts["word"]] == list(
            chain(*words[number + 1 :])
        )


def test_a_quote_beyond_the_beginning_of_a_csv_encloses_a_cell(tmp_path):
    rows = "".join(f"{i % 2},w{i}\n" for i in range(40_000))
    (tmp_path / "t.csv").write_text("click,word\n" + rows + '1,"a, b"\n' + rows)
    (reader,) = open_readers(SourceConfig(paths=(str(tmp_path / "t.csv"),)))
    encoder = FieldEncoder.for_columns([ColumnConfig(name="word", role="categorical")])
    words = [word for one in parse_rounds(reader, encoder, ["word"]) for block in one.blocks for word in block.texts["word"]]
    assert words == pl.concat(list(reader.blocks(["word"])))["word"].to_list()
    assert words[40_000] == "a, b"


def test_a_line_without_end_is_refused(tmp_path):
    (tmp_path / "t.tsv").write_text("click\tword\n1\ta\n" + "x" * (5 << 20))
    (reader,) = open_readers(SourceConfig(paths=(str(tmp_path / "t.tsv"),)))
    encoder = FieldEncoder.for_columns([ColumnConfig(name="word", role="categorical")])
    with pytest.raises(DataError, match="longer than 4 MB"):
        list(parse_rounds(reader, encoder, ["word"]))
