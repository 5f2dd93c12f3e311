"""Times of whole tables: the notation that inspection finds, and the order of a split by time."""

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ctrlab.data.configs import SourceConfig, SplitConfig
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.tables.draft import draft_config
from ctrlab.data.tables.inspect import inspect_table
from ctrlab.data.tables.timestamps import parse_timestamps

CASES = Path(__file__).parent / "cases"


@pytest.mark.parametrize(
    ("file", "column", "first", "last"),
    [
        ("avazu_yyyy.csv", "hour", datetime(2014, 10, 21), datetime(2014, 10, 29, 23)),
        ("time_yyyymmddhh.csv", "timestamp", datetime(2024, 3, 1), datetime(2024, 3, 31, 19)),
    ],
)
def test_hours_of_ten_digits_are_a_timestamp(tmp_path, file, column, first, last):
    inspection = inspect_table(SourceConfig(paths=(str(CASES / file),)))
    found = inspection.column[column]
    assert (found.role, found.timestamp_format) == ("timestamp", "yyyymmddhh")
    times = parse_timestamps(pl.read_csv(CASES / file, infer_schema=False)[column], "yyyymmddhh")
    assert (times.min(), times.max()) == (first, last)
    dataset = encode_dataset(draft_config(inspection, "t"), tmp_path / "encoded")
    cardinality = {field.name: field.cardinality for field in dataset.summary.fields}
    assert (cardinality[f"{column}_hour"], cardinality[f"{column}_weekday"]) == (24, 7)


def test_a_split_by_time_orders_instants_whose_offsets_differ(tmp_path):
    config = draft_config(inspect_table(SourceConfig(paths=(str(CASES / "mixed_tz.csv"),))), "t")
    config = config.replace(split=SplitConfig(method="time", time_column="ts"))
    dataset = encode_dataset(config, tmp_path / "encoded")
    labels = [dataset.split(name).labels for name in ("train", "valid", "test")]
    in_file = pl.read_csv(CASES / "mixed_tz.csv")["click"].to_numpy()
    for found, expected in zip(labels, np.split(in_file, [960, 1080]), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert [int(part.sum()) for part in labels] == [383, 34, 40]
