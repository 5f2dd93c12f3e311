"""The short form of `benchmarks/fuzz_tables.py`."""

from benchmarks.fuzz_tables import fuzz


def test_mutated_tables_of_every_format_are_read_or_refused_and_lose_no_line():
    counts, faults = fuzz(200, seed=3)
    assert faults == []
    assert sum(counts.values()) == 200
