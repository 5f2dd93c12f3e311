"""An encoding killed with SIGKILL at any step resumes to the same bytes as an uninterrupted one."""

import gzip
import signal

import numpy as np
import polars as pl
import pytest

from ctrlab.data.configs import ColumnConfig, SplitConfig
from ctrlab.data.encoding import parsing, write_splits
from ctrlab.data.encoding.encode import encode_dataset
from tests.support.killed import exit_code_of_killed_encoding

ROWS = 6000
COLUMNS = (
    ColumnConfig(name="click", role="label"),
    ColumnConfig(name="site", role="categorical", min_count=2),
    ColumnConfig(name="page", role="categorical"),
    ColumnConfig(name="price", role="numeric", transform="quantile", num_buckets=8),
    ColumnConfig(name="age", role="numeric", transform="log"),
    ColumnConfig(name="when", role="timestamp"),
    ColumnConfig(name="past", role="list", separator="^", max_length=3, shares="site"),
)
#: The encoder's pieces, small enough to have many in a file of 6000 rows.
SMALL = {"CHUNK_BYTES": 1 << 14, "BLOCK_ROWS": 50}


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    random = np.random.default_rng(2)
    sites = random.integers(0, 400, ROWS)
    return pl.DataFrame(
        {
            "click": random.integers(0, 2, ROWS).astype(str),
            "site": [None if site % 17 == 0 else f"s{site}" for site in sites.tolist()],
            "page": [f"https://example.org/a/long/address/{page}" for page in random.integers(0, 900, ROWS).tolist()],
            "price": [f"{price:.2f}" for price in random.gamma(2, 9, ROWS).tolist()],
            "age": [str(age) if age else "NA" for age in random.integers(0, 200, ROWS).tolist()],
            "when": [f"2024-03-{1 + i * 28 // ROWS:02d} {i % 24:02d}:30:00" for i in range(ROWS)],
            "past": [f"s{site}^s{site + 1}^" for site in sites.tolist()],
        }
    )


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(parsing, "CHUNK_BYTES", 1 << 14)
    monkeypatch.setattr(write_splits, "BLOCK_ROWS", 50)


def written(frame: pl.DataFrame, kind: str, folder) -> str:
    path = folder / f"table.{kind}"
    if kind == "parquet":
        frame.write_parquet(path, row_group_size=1000)
    else:
        text = frame.write_csv(separator="\t").encode()
        path.write_bytes(gzip.compress(text, 1) if kind == "tsv.gz" else text)
    return str(path)


def bytes_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("kind", "method", "step", "calls"),
    [
        ("tsv", "random", "read", 2),
        ("tsv", "stratified", "fitted", 1),
        ("tsv", "random", "wrote", 2),
        ("tsv.gz", "time", "read", 3),
        ("parquet", "stratified", "read", 2),
    ],
)
def test_a_killed_encoding_resumes_to_the_bytes_of_an_uninterrupted_one(
    frame, config_for, tmp_path, monkeypatch, kind, method, step, calls
):
    split = SplitConfig(method=method, train=0.6, valid=0.2, test=0.2, time_column="when" if method == "time" else None)
    config = config_for(written(frame, kind, tmp_path), columns=COLUMNS, split=split)
    if kind == "parquet":
        monkeypatch.setattr("ctrlab.data.tables.reader.BLOCK_CELLS", 7 * 700)
    sizes = SMALL | ({"BLOCK_CELLS": 7 * 700} if kind == "parquet" else {})
    ended = exit_code_of_killed_encoding(config, str(tmp_path / "broken"), calls, step, **sizes)
    assert ended == -signal.SIGKILL
    assert not (tmp_path / "broken").exists()
    seen: dict[str, list[str]] = {}
    resumed = encode_dataset(
        config, tmp_path / "broken", on_progress=lambda _, message: seen.setdefault(message.split()[0], []).append(message)
    )
    uninterrupted = encode_dataset(config, tmp_path / "uninterrupted")
    assert sum(uninterrupted.summary.rows.values()) == ROWS
    assert bytes_of(resumed.path) == bytes_of(uninterrupted.path)
    if step == "read":  # it was killed after some rounds of blocks, and its first report is of a later one
        rows = [int(message.split()[1].replace(",", "")) for message in seen["read"]]
        assert rows[0] > ROWS * 0.15
    else:
        assert "read" not in seen
    assert "reading" not in seen


def test_a_changed_file_is_encoded_from_its_beginning(frame, config_for, tmp_path):
    config = config_for(written(frame, "tsv", tmp_path), columns=COLUMNS)
    assert exit_code_of_killed_encoding(config, str(tmp_path / "broken"), 2, "read", **SMALL) == -signal.SIGKILL
    written(frame.reverse(), "tsv", tmp_path)
    resumed = encode_dataset(config, tmp_path / "broken")
    assert bytes_of(resumed.path) == bytes_of(encode_dataset(config, tmp_path / "uninterrupted").path)
