"""Notes travel unchanged through the JSON of inspections and summaries."""

from dataclasses import replace

from ctrlab.data.configs import SourceConfig
from ctrlab.data.dataset import DatasetSummary
from ctrlab.data.tables.inspect import TableInspection, inspect_table
from ctrlab.data.tables.notes import Note

NOTES = (Note("leak", "paid", "paid alone gives an AUC of 0.99", "warning", "ignore paid"), Note("rows", None, "7 rows"))


def test_notes_of_an_inspection_survive_json(tmp_path):
    (tmp_path / "t.csv").write_text("click,site\n" + "1,a\n0,b\n" * 5)
    inspection = replace(inspect_table(SourceConfig(paths=(str(tmp_path / "t.csv"),))), notes=NOTES)
    assert TableInspection.from_dict(inspection.to_dict()).notes == NOTES


def test_notes_of_a_summary_survive_json():
    summary = DatasetSummary(rows={"train": 1}, ctr={"train": 1.0}, fields=(), size_bytes=1, notes=NOTES)
    assert DatasetSummary.from_dict(summary.to_dict()) == summary
