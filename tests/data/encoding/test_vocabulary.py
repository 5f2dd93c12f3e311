"""fields/vocabulary.py: keys, bounded counting, order; against plain Python."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlab.data.encoding.encoder import CellsInMemory
from ctrlab.data.encoding.fields import ParsedColumn
from ctrlab.data.encoding.fields.vocabulary import count_distinct, keys_of_texts, order_by_count
from ctrlab.data.tables.cells import canonical_text

TEXTS = st.lists(
    st.one_of(st.none(), st.sampled_from(["a", "a\0", "", "b", "ä" * 4, "1234567ä"]), st.text(max_size=12)), max_size=40
)


def cells_in_blocks(texts: list[str | None], block_rows: int) -> list[ParsedColumn]:
    series = pl.Series(texts, dtype=pl.String)
    blocks = [keys_of_texts(series[start : start + block_rows]) for start in range(0, len(texts), block_rows)]
    return [ParsedColumn(keys, texts=long) for keys, long in blocks]


def cells_of(texts: list[str | None], block_rows: int = 7) -> CellsInMemory:
    return CellsInMemory(cells_in_blocks(texts, block_rows))


@settings(deadline=None)
@given(TEXTS)
def test_keys_are_equal_where_texts_are_and_restore_the_text(texts):
    keys, long = keys_of_texts(pl.Series(texts, dtype=pl.String))
    texts = [canonical_text(text or "") for text in texts]
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
    counts = Counter(text for text in (canonical_text(text or "") for text in texts) if text)
    expected = sorted((text for text in counts if counts[text] >= min_count), key=lambda text: (-counts[text], text.encode()))
    cells = cells_of(texts)
    _, ordered = order_by_count(*count_distinct(cells, min_count), cells)
    assert ordered.to_list() == expected


class CountedPasses(CellsInMemory):
    """Cells that count how often they are read from the beginning."""

    passes = 0

    def blocks(self):
        self.passes += 1
        return super().blocks()


@pytest.mark.parametrize("min_count", [1, 2])
def test_a_vocabulary_beyond_the_bound_is_counted_in_parts_to_the_same_result(min_count):
    texts = [f"{word:x}" for word in np.random.default_rng(0).integers(0, 30_000, 40_000).tolist()]
    cells = cells_of(texts, 9000)
    whole = order_by_count(*count_distinct(cells, min_count), cells)[1].to_list()
    counted = CountedPasses(cells_in_blocks(texts, 9000))
    assert order_by_count(*count_distinct(counted, min_count, max_distinct=4000), cells)[1].to_list() == whole
    assert counted.passes >= 8
