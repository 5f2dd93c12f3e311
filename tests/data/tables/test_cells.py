"""Canonical cells: the same from a query, cell by cell, and from the compiled loop."""

import random

import numpy as np
import polars as pl
import pytest

from ctrlab.data.encoding.fields.vocabulary import keys_of_texts
from ctrlab.data.tables.cells import CellRules, canonical, canonical_text, unescaped
from ctrlab.data.tables.numbers import find_number_formats, read_numbers


@pytest.mark.parametrize(
    ("cell", "kept"),
    [
        (" s6 ", "s6"), ("\ts6\xa0", "s6"), ("a b", "a b"), ("12.0", "12"), ("-3.000", "-3"), ("+4.0", "+4"), ("0.0", "0"), ("-0", "0"), ("-0.0", "0"),
        ("1.0.0", "1.0.0"), ("v1.0", "v1.0"), (".0", ".0"), ("10", "10"), ("10.50", "10.50"), ("007", "007"), ("naive", "naive"),
    ],
)  # fmt: skip
def test_blanks_and_zeros_after_the_point_are_removed(cell, kept):
    assert canonical_text(cell) == kept


@pytest.mark.parametrize(
    "word",
    ["NA", "n/a", "NaN", "Null", "None", "\\N", "?", "#N/A", "(null)", "inf", "-Infinity", " - ", "NIL", "<NA>", "NaT", ""],
)
def test_words_for_missing_are_missing_in_any_case(word):
    assert canonical_text(word) is None
    assert canonical(pl.Series([word, "a"] * 50)).null_count() == 50


def test_further_words_are_missing_and_blanks_can_stay():
    rules = CellRules(trim=False, missing_words=("Unbekannt", "-999"))
    texts = ["unbekannt", " -999 ", " a", "12.0", "н/д"]
    assert [canonical_text(text, rules) for text in texts] == [None, None, " a", "12", "н/д"]
    assert canonical_text("É.", CellRules(missing_words=("é.",))) is None
    assert CellRules.restore(rules.state()) == rules
    assert CellRules().state() == {}


@pytest.mark.parametrize("rules", [CellRules(), CellRules(trim=False, missing_words=("н/д", "-1", "a very long word"))])
@pytest.mark.parametrize("unquote", [False, True])
def test_query_loop_and_single_cells_agree(rules, unquote):
    draw = random.Random(1)
    pieces = [" ", "\t", "\xa0", "n", "N", "A", "a", "/", "0", "1", ".", "0", "-", "+", '"', "'", "\\N", "null", "(null)", "н/д", "é", "inf",
              "a very long word", "."]  # fmt: skip
    texts = pl.Series(["".join(draw.choices(pieces, k=draw.randint(0, 5))) for _ in range(4000)])
    one_by_one = [canonical_text(text, rules, unquote=unquote) for text in texts]
    assert canonical(texts, rules, unquote=unquote).to_list() == one_by_one
    cleaned = pl.Series([text or "" for text in one_by_one])
    expected, _ = keys_of_texts(cleaned, CellRules(trim=False))
    found, long = keys_of_texts(texts, rules, unquote=unquote)
    same = np.array([text is None or canonical_text(text, CellRules(trim=False)) == text for text in one_by_one])
    np.testing.assert_array_equal(found[same], expected[same])
    assert long is None or set(long["text"]) <= set(one_by_one)


def test_escapes_in_quoted_elements_are_resolved():
    assert unescaped(pl.Series([r'"a\"b"', r"'it\'s'", r'"caf\u00e9"', r"C:\temp"])).to_list() == [
        '"a"b"', "'it's'", '"café"', r"C:\temp",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "found", "numbers"),
    [
        (["1104,84", "7,5"], ("1234,5",), [1104.84, 7.5]),
        (["1.104,84", "22,5"], ("1.234,5",), [1104.84, 22.5]),
        (["1,104.84", "3"], ("1,234.5",), [1104.84, 3]),
        (["12,34,567.5", "3"], ("1,234.5",), [1234567.5, 3]),
        (["1 104,84", "3"], ("1 234,5",), [1104.84, 3]),
        (["1\u202f104,84", "3"], ("1 234,5",), [1104.84, 3]),
        (["1'104.84", "3"], ("1'234.5",), [1104.84, 3]),
        (["$947.34", "-$1.50"], ("1234.5",), [947.34, -1.5]),
        (["10,50 €", "€ 3"], ("1234,5",), [10.5, 3]),
        (["4.2%", "12 %"], ("1234.5",), [4.2, 12]),
        (["(3.5)", "\u22122"], ("1234.5",), [-3.5, -2]),
        (["+4", "1e5"], ("1234.5",), [4, 1e5]),
        (["0.125", "7.500"], ("1234.5",), [0.125, 7.5]),
        (["0,125", "7,500"], ("1234,5",), [0.125, 7.5]),
        (["1.234.567", "2.000"], ("1.234,5",), [1234567, 2000]),
        (["1.234", "7.500"], ("1234.5", "1.234,5"), [1.234, 7.5]),
        (["1,234", "7,500"], ("1,234.5", "1234,5"), [1234, 7500]),
        (["192.168.1.10", "10.0.0.1"], (), None),
        (["2014-10-21", "2014-10-22"], (), None),
        (["a", "b"], (), None),
    ],
)
def test_notations_of_numbers_are_found_and_read(cells, found, numbers):
    assert find_number_formats(pl.Series(cells)) == found
    if found:
        read, unreadable = read_numbers(pl.Series([*cells, "n/a", None]), CellRules(number_format=found[0]))
        np.testing.assert_allclose(read, [*numbers, np.nan, np.nan])
        assert unreadable == 0


def test_a_cell_of_another_notation_is_unreadable():
    numbers, unreadable = read_numbers(pl.Series(["1,5", "1,2,3", "x"]), CellRules(number_format="1234,5"))
    assert (numbers[0], unreadable) == (1.5, 2)
    assert np.isnan(read_numbers(pl.Series(["-999", "5"]), CellRules(missing_words=("-999",)))[0][0])
