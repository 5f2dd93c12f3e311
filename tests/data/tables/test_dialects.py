"""Tables in every combination of dialect read back as the same values, or are refused in a sentence that names the cause."""

import bz2
import gzip
import lzma

import numpy as np
import polars as pl
import pytest
import zstandard

from ctrlab.data.configs import SourceConfig
from ctrlab.data.tables.reader import open_table
from ctrlab.errors import DataError

NUM_DIALECTS = 500
DELIMITERS = [",", "\t", ";", "|", "\x01", "::", "||", "~", "^", "\x1f"]
QUOTING = ["never", "needed", "always", "single", "backslash"]
ENDS = ["\n", "\r\n", "\r"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
HEADERS = [True, False]
MISSING = ["", "NA", r"\N", "null", "?", "-"]
PACKERS = {
    "none": lambda raw: raw,
    "gz": gzip.compress,
    "zst": zstandard.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
NAMES = ["click", "site", "text", "price"]


def cell(text: str, quoting: str, delimiter: str, missing: str) -> str:
    if quoting == "never" or text == missing:
        return text
    quote = "'" if quoting == "single" else '"'
    if quoting == "needed" and not (delimiter in text or quote in text):
        return text
    inside = text.replace(quote, "\\" + quote if quoting == "backslash" else quote * 2)
    return f"{quote}{inside}{quote}"


def drawn(number: int):
    """Dialect number `number`: each choice occurs with every other in turn, the rest is drawn."""
    rng = np.random.default_rng([7, number])
    pick = lambda choices: choices[rng.integers(len(choices))]  # noqa: E731
    return (
        pick(DELIMITERS),
        QUOTING[number % 5],
        pick(ENDS),
        pick(ENCODINGS),
        pick(HEADERS),
        pick(MISSING),
        pick(list(PACKERS)),
        rng,
    )


@pytest.mark.parametrize("start", range(0, NUM_DIALECTS, 100))
def test_a_table_in_any_dialect_reads_back_the_same_or_is_refused_with_the_cause(tmp_path, start):
    refused = 0
    for number in range(start, start + 100):
        delimiter, quoting, end, encoding, header, missing, packing, rng = drawn(number)
        words = ["news", "Köln", "two words", "it is", "plain"]
        if quoting != "never":
            words += [
                f"a{delimiter}b",
                "it's" if quoting != "single" else 'say "x"',
                'the "best" one' if quoting != "single" else "it's",
            ]
        texts = [words[i] for i in rng.integers(len(words), size=30)]
        rows = [
            (str(rng.integers(2)), f"s{rng.integers(5)}", texts[i], missing if rng.random() < 0.1 else f"{rng.lognormal(3):.2f}")
            for i in range(30)
        ]
        lines = [*([NAMES] if header else []), *rows]
        text = end.join(delimiter.join(cell(one, quoting, delimiter, missing) for one in row) for row in lines) + end
        path = tmp_path / f"t{number}.txt"
        path.write_bytes(PACKERS[packing](text.encode(encoding)))
        table = open_table(SourceConfig(paths=(str(path),)))
        try:
            frame = pl.concat(list(table.blocks()))
        except DataError as error:
            assert "\n" not in str(error) and path.name in str(error)
            refused += 1
            continue
        dialect = (delimiter, quoting, end, encoding, header, missing, packing)
        assert table.lines.reconciled and table.lines.lines == len(lines), dialect
        assert frame.columns == (NAMES if header else [f"column_{i}" for i in range(1, 5)]), dialect
        assert frame.rows() == [tuple(one or None for one in row) for row in rows], dialect
    assert refused <= 2
