"""The label is found, or asked for with the counts of every answer (cases T5 and T6 and others of their kind)."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ctrlab.data.configs import ColumnConfig, SourceConfig
from ctrlab.data.encoding.encode import encode_dataset
from ctrlab.data.tables.draft import draft_config
from ctrlab.data.tables.inspect import TableInspection, inspect_table
from ctrlab.data.tables.label_names import name_likeliness
from ctrlab.errors import ConfigError, DataError

CASES = Path(__file__).parent / "cases"


@pytest.fixture
def inspect_columns(tmp_path):
    """Write columns as CSV and inspect the file."""

    def call(**columns):
        path = tmp_path / "t.csv"
        length = len(next(iter(columns.values())))
        pl.DataFrame({"site": [f"s{i % 3}" for i in range(length)]} | columns).write_csv(path)
        return inspect_table(SourceConfig(paths=(str(path),)))

    return call


def case(name):
    return inspect_table(SourceConfig(paths=(str(CASES / name),)))


def totals(dataset):
    return sum(dataset.summary.rows.values()), sum(dataset.summary.clicks.values())


def test_a_click_behind_another_column_of_0_and_1_is_the_label():
    inspection = case("ads_kaggle.csv")
    assert inspection.label == "Clicked on Ad" and inspection.ctr == pytest.approx(457 / 1200)
    male = inspection.column["Male"]
    assert (male.role, male.distinct) == ("categorical", 2)
    assert draft_config(inspection, "ads").label == "Clicked on Ad"


@pytest.mark.parametrize(
    ("file", "label", "counts", "answer", "rows", "clicks"),
    [
        ("label_12.csv", "label", ["1 (743)", "2 (457)", "--positive 2"], {"positive": ("2",)}, 1200, 457),
        ("label_yesno_click.csv", "label", ["click (457)", "no click (743)", "--positive click"], {"positive": ("click",)}, 1200, 457),
        ("ratings.csv", "rating", ["1 (535)", "4 (114)", "--threshold 3 gives 285 clicks in 1,200 rows"], {"threshold": 3}, 1200, 285),
        ("label_null.csv", "click", ["13 empty cells", "gives 451 clicks in 1,187 rows"], {"empty_label": "drop"}, 1187, 451),
        ("label_null.csv", "click", ["--empty-label negative"], {"empty_label": "negative"}, 1200, 451),
    ],
)  # fmt: skip
def test_a_label_that_needs_a_decision_is_asked_for_and_the_answer_is_taken(tmp_path, file, label, counts, answer, rows, clicks):
    inspection = case(file)
    assert inspection.label is None and inspection.ctr is None
    assert [note for note in inspection.notes if note.kind == "label" and note.severity == "fault"]
    for given in (None, label):
        with pytest.raises(DataError) as caught:
            draft_config(inspection, "t", label=given)
        assert f"'{label}' holds" in str(caught.value)
        assert all(text in str(caught.value) for text in counts), str(caught.value)
    config = draft_config(inspection, "t", label=label, **answer)
    dataset = encode_dataset(config, tmp_path / "encoded")
    assert totals(dataset) == (rows, clicks)
    readings = {reading.flags: (reading.rows, reading.clicks) for reading in inspection.label_candidates[0].readings}
    assert (rows, clicks) in readings.values()


def test_dropped_rows_are_left_out_of_every_column_and_noted(tmp_path):
    config = draft_config(case("label_null.csv"), "t", empty_label="drop")
    dataset = encode_dataset(config, tmp_path / "encoded")
    assert [note.text for note in dataset.summary.notes if note.kind == "rows"] == [
        "13 of 1,200 rows were left out, because their label or weight is empty or their weight is 0"
    ]
    # The same table without those rows gives the same arrays.
    table = pl.read_csv(CASES / "label_null.csv", infer_schema=False).drop_nulls("click")
    table.write_csv(tmp_path / "kept.csv")
    source = config.source.replace(paths=(str(tmp_path / "kept.csv"),))
    without = encode_dataset(config.replace(source=source), tmp_path / "kept")
    for split in dataset.splits:
        ours, theirs = dataset.split(split), without.split(split)
        for part in ("ids", "values", "labels"):
            np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))


@pytest.mark.parametrize(
    "name",
    [
        "click",
        "is_click",
        "isClick",
        "IS_CLICKED",
        "label",
        "y",
        "Clicked on Ad",
        "clicked_on_ad",
        "user-clicked",
        "点击",
        "geklickt",
    ],
)
def test_names_of_clicks_are_recognised_word_by_word(inspect_columns, name):
    inspection = inspect_columns(male=[0, 1] * 30, wifi=[1, 0, 0] * 20, **{name: [0, 0, 1] * 20})
    assert inspection.label == name


@pytest.mark.parametrize("name", ["click_time", "target_id", "item_type", "is_weekend", "device_type", "like_count"])
def test_names_of_features_are_no_labels(name):
    assert name_likeliness(name) == 0


def test_a_click_comes_before_other_outcomes_and_equal_outcomes_are_asked_for(inspect_columns):
    zeros_ones = {"like": [0, 1] * 30, "purchase": [0, 0, 1] * 20}
    assert inspect_columns(**zeros_ones, click=[1, 0, 1] * 20).label == "click"
    inspection = inspect_columns(**zeros_ones)
    with pytest.raises(DataError, match=r"which column is the label.*'like' holds 0 \(30\), 1 \(30\).*'purchase' holds"):
        draft_config(inspection, "t")
    assert draft_config(inspection, "t", label="purchase").label == "purchase"


def test_several_unnamed_columns_of_0_and_1_are_asked_for_and_one_is_taken_with_a_note(inspect_columns):
    with pytest.raises(DataError, match=r"which column is the label.*'a'.*'b'"):
        draft_config(inspect_columns(a=[0, 1] * 30, b=[1, 0, 0] * 20), "t")
    inspection = inspect_columns(a=[0, 1] * 30, weekend=[1, 0, 0] * 20)
    assert inspection.label == "a"
    assert [(note.severity, note.column) for note in inspection.notes if note.kind == "label"] == [("warning", "a")]


def test_only_clicks_are_marked(inspect_columns):
    inspection = inspect_columns(clicked=["1", None, None] * 20)
    assert "--empty-label negative gives 20 clicks in 60 rows" in inspection.notes[0].text
    assert draft_config(inspection, "t", empty_label="negative").label == "clicked"


def test_a_word_of_the_source_means_an_empty_label(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("click,site\n" + "1,a\n0,b\nunknown,c\n" * 40)
    inspection = inspect_table(SourceConfig(paths=(str(path),), missing_words=("unknown",)))
    assert "40 empty cells" in inspection.label_candidates[0].question
    dataset = encode_dataset(draft_config(inspection, "t", empty_label="drop"), tmp_path / "encoded")
    assert totals(dataset) == (80, 40)


def test_kinds_of_events_are_readings(inspect_columns):
    readings = inspect_columns(event=["view", "view", "view", "click", "buy"] * 12).label_candidates[0].readings
    assert [(reading.positive, reading.clicks) for reading in readings][:2] == [(("click",), 12), (("buy",), 12)]


def test_shares_are_soft_labels_and_clicks_of_impressions_too(inspect_columns, tmp_path):
    soft = inspect_columns(ctr=["0.1", "0.25", "0.5", "0.0", "1.0", "0.05"] * 10)
    assert soft.label_candidates[0].readings[0].soft
    counted = inspect_columns(clicks=[0, 1, 2, 3] * 15, impressions=[10, 20, 30, 40] * 15)
    (candidate,) = [found for found in counted.label_candidates if found.column == "clicks"]
    assert candidate.readings[0].label_total == "impressions" and candidate.readings[0].clicks == 90
    config = draft_config(counted, "t", label="clicks", label_total="impressions")
    assert {column.name: column.role for column in config.columns}["impressions"] == "weight"
    dataset = encode_dataset(config, tmp_path / "encoded")
    rows = [dataset.split(name) for name in dataset.splits]
    weights, labels = (np.concatenate([getattr(split, part) for split in rows]) for part in ("weights", "labels"))
    assert labels.dtype == np.float32 and weights.sum() == 1500 and weights @ labels == pytest.approx(90)
    assert sum(dataset.summary.clicks.values()) == pytest.approx(90, rel=1e-6)
    assert dataset.summary.ctr["train"] == pytest.approx(float(np.average(rows[0].labels, weights=rows[0].weights)))


def test_shares_in_per_cent_are_soft_labels(inspect_columns, tmp_path):
    inspection = inspect_columns(ctr=[f"{i % 40 / 10:.1f} %" for i in range(400)], site=["a", "b"] * 200)
    reading = inspection.label_candidates[0].readings[0]
    assert reading.soft and reading.clicks == pytest.approx(7.8)
    dataset = encode_dataset(draft_config(inspection, "t", label="ctr", soft=True), tmp_path / "encoded")
    assert sum(dataset.summary.clicks.values()) == pytest.approx(7.8, abs=1e-4)


def test_a_rare_click_that_the_inspected_rows_do_not_hold_is_still_the_label(tmp_path):
    (tmp_path / "t.csv").write_text("click,site\n" + "0,a\n0,b\n" * 500 + "1,a\n" * 50)
    assert inspect_table(SourceConfig(paths=(str(tmp_path / "t.csv"),)), max_rows=100).label == "click"


def test_an_inspection_with_candidates_survives_json(inspect_columns):
    inspection = inspect_columns(rating=[1, 2, 3, 4] * 15, click=["0", "1", None] * 20)
    assert TableInspection.from_dict(inspection.to_dict()) == inspection


def test_a_label_is_read_in_one_way():
    with pytest.raises(ConfigError, match="positive and threshold read the label y in two ways"):
        ColumnConfig(name="y", role="label", positive=("2",), threshold=1)
