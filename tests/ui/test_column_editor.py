"""The column table with list-valued columns: what it starts from, and the settings it gives back."""

import polars as pl
import pytest

from ctrlab.data.configs import SourceConfig
from ctrlab.data.tables.draft import draft_config
from ctrlab.data.tables.inspect import inspect_table
from ctrlab.ui.components.column_editor import column_configs, column_faults, column_table


@pytest.fixture
def inspection(tmp_path):
    past = ["^".join(f"i{(i * 7 + k) % 20}" for k in range(i % 5)) for i in range(200)]
    frame = pl.DataFrame({"click": [i % 2 for i in range(200)], "item": [f"i{i % 20}" for i in range(200)], "past": past})
    frame.write_csv(tmp_path / "t.csv")
    return inspect_table(SourceConfig(paths=(str(tmp_path / "t.csv"),)))


def test_the_table_of_an_inspection_gives_back_its_draft(inspection):
    columns = draft_config(inspection, "mine").columns
    table = column_table(inspection, columns)
    assert column_configs(table) == columns
    assert not column_faults(table)
    past = columns[2]
    assert (past.role, past.separator, past.max_length, past.shares) == ("list", "^", 4, "item")


def test_edited_list_settings_are_applied_and_emptied_cells_are_unset(inspection):
    table = column_table(inspection, draft_config(inspection, "mine").columns)
    table.loc[2, "shares"], table.loc[2, "max_length"], table.loc[2, "separator"] = None, 3, ""
    past = column_configs(table)[2]
    assert (past.separator, past.max_length, past.shares) == (None, 3, None)


def test_a_list_alone_is_enough_to_learn_from(inspection):
    table = column_table(inspection, draft_config(inspection, "mine").columns)
    table.loc[1, "role"], table.loc[2, "shares"] = "ignore", None
    assert not column_faults(table)
