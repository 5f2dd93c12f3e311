"""What an inspected table suggests about its split, and the split that it gets."""

import polars as pl

from ctrlab.data.configs import SourceConfig
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.tables.draft import draft_config
from ctrlab.data.tables.inspect import inspect_table


def log(tmp_path, **columns):
    rows = 2000
    table = {"click": [int(i % 5 == 0) for i in range(rows)], "site": [f"s{i % 7}" for i in range(rows)], **columns}
    pl.DataFrame(table).write_csv(tmp_path / "log.csv")
    return inspect_table(SourceConfig(paths=(str(tmp_path / "log.csv"),)))


def test_a_time_column_offers_a_split_by_time_and_the_default_stays_stratified(tmp_path):
    times = [f"2024-03-{1 + i // 100:02d} {i % 24:02d}:00:00" for i in range(2000)]
    found = log(tmp_path, shown_at=times)
    (note,) = [note for note in found.notes if note.kind == "time split"]
    assert note.column == "shown_at" and note.severity == "info" and "time_column shown_at" in note.remedy
    split = draft_config(found, "log").split
    assert split.method == "stratified"
    offered = draft_config(found, "log").replace(split=split.replace(method="time", time_column="shown_at"))
    assert encode_dataset(offered, tmp_path / "encoded").summary.rows["test"] == 200


def test_without_times_nothing_is_offered(tmp_path):
    assert not [note for note in log(tmp_path).notes if note.kind == "time split"]


def test_a_tenth_is_kept_aside_for_fine_tuning_unless_declined(tmp_path):
    config = draft_config(log(tmp_path), "log")
    rows = encode_dataset(config, tmp_path / "encoded").summary.rows
    assert rows == {"train": 1400, "valid": 200, "test": 200, "finetune": 200}
    declined = config.replace(split=config.split.replace(train=0.8, finetune=0.0))
    assert "finetune" not in encode_dataset(declined, tmp_path / "without").summary.rows
