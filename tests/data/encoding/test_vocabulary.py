"""fields/vocabulary.py: keys, bounded counting, order; against plain Python."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.data.encoding.encoder import CellsInMemory
from ctrlab.data.encoding.fields import ParsedColumn, vocabulary
from ctrlab.data.encoding.fields.vocabulary import count_distinct, keys_of_texts, order_by_count

TEXTS = st.lists(
    st.one_of(st.none(), st.sampled_from(["a", "a\0", "", "b", "ä" * 4, "1234567ä"]), st.text(max_size=12)), max_size=40
)


def cells_of(texts: list[str | None], block_rows: int = 7) -> CellsInMemory:
    series = pl.Series(texts, dtype=pl.String)
    blocks = [keys_of_texts(series[start : start + block_rows]) for start in range(0, len(texts), block_rows)]
    return CellsInMemory([ParsedColumn(keys, texts=long) for keys, long in blocks])


@settings(deadline=None)
@given(TEXTS)
def test_keys_are_equal_where_texts_are_and_tell_the_text(texts):
    keys, long = keys_of_texts(pl.Series(texts, dtype=pl.String))
    known = {} if long is None else dict(long.iter_rows())
    for key, text in zip(keys.tolist(), texts, strict=True):
        if not text:
            assert key == 0
        elif key >> 63:
            assert known[key] == text
        else:
            assert key.to_bytes(8, "little").rstrip(b"\0") == text.encode()
    assert len(set(keys.tolist())) == len({text or "" for text in texts})


@settings(deadline=None, max_examples=50)
@given(TEXTS, st.integers(1, 3))
def test_counts_and_order_are_those_of_plain_python(texts, min_count):
    counts = Counter(text for text in texts if text)
    expected = sorted((text for text in counts if counts[text] >= min_count), key=lambda text: (-counts[text], text.encode()))
    cells = cells_of(texts)
    _, ordered = order_by_count(*count_distinct(cells, min_count), cells)
    assert ordered.to_list() == expected


@pytest.mark.parametrize("min_count", [1, 2])
def test_a_vocabulary_beyond_the_bound_is_counted_in_parts_to_the_same_result(monkeypatch, min_count):
    texts = [f"{word:x}" for word in np.random.default_rng(0).integers(0, 30_000, 40_000).tolist()]
    cells = cells_of(texts, 9000)
    whole = order_by_count(*count_distinct(cells, min_count), cells)[1].to_list()
    most = []
    count = vocabulary._count_part
    monkeypatch.setattr(vocabulary, "MAX_DISTINCT", 4000)
    monkeypatch.setattr(vocabulary, "_count_part", lambda *given: most.append(given) or count(*given))
    assert order_by_count(*count_distinct(cells, min_count), cells)[1].to_list() == whole
    assert max(part_bits for _, _, part_bits, _ in most) >= 3
