"""Small raw files for the tests of reading and encoding."""

import polars as pl
import pytest

from ctrlab.data.configs import ColumnConfig, DatasetConfig, SourceConfig, SplitConfig


@pytest.fixture
def write(tmp_path):
    """Write bytes or text to a file and return its path."""

    def write_file(name: str, content: bytes | str) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


@pytest.fixture
def table():
    """200 rows with every kind of column and some empty cells."""
    rows = range(200)
    return pl.DataFrame(
        {
            "click": [str(int(i % 5 == 0)) for i in rows],
            "site": [None if i % 11 == 0 else f"s{i % 7}" for i in rows],
            "rare": [f"r{i}" if i % 9 == 0 else "common" for i in rows],
            "price": [None if i % 13 == 0 else str(i * 0.5) for i in rows],
            "when": [f"2024-03-{1 + i // 24 % 28:02d} {i % 24:02d}:30:00" for i in rows],
        }
    )


@pytest.fixture
def config_for():
    """A dataset of the `table` fixture's columns at some path."""

    def make(path: str | list[str], **changes) -> DatasetConfig:
        paths = (path,) if isinstance(path, str) else tuple(path)
        settings = {
            "name": "test",
            "source": SourceConfig(paths=paths),
            "columns": (
                ColumnConfig(name="click", role="label"),
                ColumnConfig(name="site", role="categorical"),
                ColumnConfig(name="rare", role="categorical", min_count=2),
                ColumnConfig(name="price", role="numeric"),
                ColumnConfig(name="when", role="timestamp"),
            ),
            "split": SplitConfig(method="files")
            if len(paths) > 1
            else SplitConfig(method="stratified", train=0.6, valid=0.2, test=0.2),
        }
        return DatasetConfig(**(settings | changes))

    return make
