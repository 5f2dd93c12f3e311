"""The table in which the user corrects the inferred role and settings of each column."""

import typing
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import streamlit as st

from ctrlab.config import choices_of, type_hints
from ctrlab.data.configs import FEATURE_ROLES, ColumnConfig
from ctrlab.data.tables.labels import LABEL_SETTINGS
from ctrlab.ui import format
from ctrlab.ui.components.config_form import label_of

if TYPE_CHECKING:
    import pandas as pd

    from ctrlab.data.tables.inspect import TableInspection

#: The settings of a column that are edited here; how the label is read has a form of its own.
_EDITABLE = tuple(field.name for field in fields(ColumnConfig) if field.name not in ("name", *LABEL_SETTINGS))


def column_table(inspection: "TableInspection", columns: tuple[ColumnConfig, ...]) -> "pd.DataFrame":
    """One row a column of the file: the inspection's findings and the initial settings from `columns`."""
    import pandas as pd

    settings = {column.name: column for column in columns}
    rows = []
    for found in inspection.columns:
        chosen = settings.get(found.name) or ColumnConfig(name=found.name)
        rows.append(
            {
                "name": found.name,
                **{name: getattr(chosen, name) for name in _EDITABLE},
                "distinct": found.distinct,
                "missing": found.missing_share,
                "missing_words": ", ".join(f"{word} ({format.count(cells)})" for word, cells in found.missing_words),
                "examples": ", ".join(found.examples),
                "time_examples": ", ".join(found.time_examples),
                "reason": found.reason,
            }
        )
    return pd.DataFrame(rows)


def column_editor(table: "pd.DataFrame", key: str) -> "pd.DataFrame":
    """Draw `table` for editing; returns the edited table."""
    return st.data_editor(
        table,
        key=key,
        hide_index=True,
        height=min(38 + 35 * len(table), 520),
        disabled=[name for name in table.columns if name not in _EDITABLE],
        column_order=_order(table),
        alt="The columns of the file with the role and settings of each",
        column_config={
            "name": st.column_config.TextColumn("Column", pinned=True),
            **{name: _setting_column(name, list(table["name"])) for name in _EDITABLE},
            "distinct": st.column_config.NumberColumn("Values", format="localized", help="Number of distinct values."),
            "missing": st.column_config.NumberColumn("Missing", format="percent"),
            "missing_words": st.column_config.TextColumn("Missing words", help="Words that count as missing, with their cells."),
            "examples": st.column_config.TextColumn("Most frequent values", width="medium"),
            "time_examples": st.column_config.TextColumn("First times as read", width="medium"),
            "reason": st.column_config.TextColumn("Reason for the role", width="medium"),
        },
    )  # fmt: skip


def column_configs(table: "pd.DataFrame") -> tuple[ColumnConfig, ...]:
    """The edited table as configs; ConfigError names settings that are out of range."""
    return tuple(ColumnConfig(**_settings(row)) for row in table.to_dict("records"))


def column_faults(table: "pd.DataFrame") -> list[str]:
    """Why the table cannot be encoded, one sentence a fault, naming the columns."""
    labels = [row["name"] for row in table.to_dict("records") if row["role"] == "label"]
    faults = []
    if len(labels) != 1:
        found = f"there are {len(labels)}: {', '.join(labels)}" if labels else "there is none"
        faults.append(f"exactly one column must be the label, {found}; set the role of one column to label")
    if not any(row["role"] in FEATURE_ROLES for row in table.to_dict("records")):
        faults.append("no feature column is left; make at least one column categorical, numeric, timestamp or list")
    return faults


def followed(
    table: "pd.DataFrame", before: Sequence[ColumnConfig], inspection: "TableInspection", after: Sequence[ColumnConfig]
) -> "pd.DataFrame":
    """The table of a new inspection; columns that the user changed since the draft `before` keep their settings.

    Args:
        table: as edited. after: the draft of the new inspection.
    """
    drafted = {column.name: column for column in before}
    rows = {row["name"]: _settings(row) for row in table.to_dict("records")}
    kept = {name: row for name, row in rows.items() if name not in drafted or row != _drafted(drafted[name])}
    new = column_table(inspection, tuple(after))
    for name, settings in kept.items():
        for setting in _EDITABLE:
            new.loc[new["name"] == name, setting] = settings[setting]
    return new


def _drafted(column: ColumnConfig) -> dict[str, Any]:
    return {name: getattr(column, name) for name in ("name", *_EDITABLE)}


def _settings(row: dict[str, Any]) -> dict[str, Any]:
    return {"name": row["name"], **{name: _value(name, row[name]) for name in _EDITABLE}}


def _value(setting: str, cell: Any) -> Any:
    """A cell as the setting's type; an empty one is the default."""
    default, hint = ColumnConfig.__dataclass_fields__[setting].default, _type_of(setting)
    if cell is None or cell == "" or cell != cell:
        return default
    return hint(cell) if hint in (int, bool) else cell


def _type_of(setting: str) -> Any:
    """The type of a setting, without None."""
    hint = type_hints(ColumnConfig)[setting]
    return next((one for one in typing.get_args(hint) if one in (int, bool, str)), hint)


def _setting_column(setting: str, names: list[str]) -> Any:
    """The editor's column of a setting, from its declaration."""
    facts = ColumnConfig.__dataclass_fields__[setting].metadata
    title, hint, choices = (
        label_of(ColumnConfig.__dataclass_fields__[setting]),
        _type_of(setting),
        choices_of(ColumnConfig, setting),
    )
    required = ColumnConfig.__dataclass_fields__[setting].default is not None
    if setting == "shares":
        return st.column_config.SelectboxColumn(title, options=names, help=facts["help"])
    if choices:
        return st.column_config.SelectboxColumn(title, options=list(choices), required=required, help=facts["help"])
    if hint is bool:
        return st.column_config.CheckboxColumn(title, help=facts["help"])
    if hint is int:
        return st.column_config.NumberColumn(
            title, min_value=facts["minimum"], max_value=facts["maximum"], step=1, help=facts["help"]
        )
    return st.column_config.TextColumn(title, help=facts["help"])


#: The settings of each role, in the order in which they are shown.
_SETTINGS_OF = {
    "categorical": ("min_count", "trim"),
    "numeric": ("transform", "number_format", "num_buckets"),
    "timestamp": ("timestamp_format",),
    "list": ("separator", "list_format", "max_length", "shares", "min_count"),
}


def _order(table: "pd.DataFrame") -> list[str]:
    """Column order: what was found, then the settings of the roles there are, then the others."""
    # Facts that no column has would be empty columns.
    rare = [name for name in ("missing_words", "time_examples") if (table[name] != "").any()]
    roles = set(table["role"])
    used = [name for role, names in _SETTINGS_OF.items() if role in roles for name in names]
    others = [name for names in _SETTINGS_OF.values() for name in names]
    return ["name", "role", "distinct", "missing", "examples", *rare, "reason", *dict.fromkeys([*used, *others])]


def summary_line(inspection: "TableInspection") -> str:
    """Size, inspected rows, columns and CTR as one line."""
    extent = "all" if inspection.complete else "the first"
    parts = [
        f"{format.size(inspection.size_bytes)} on disk",
        f"{extent} {inspection.rows:,} rows inspected".replace(",", " "),
        format.plural(len(inspection.columns), "column"),
    ]
    if inspection.ctr is not None:
        parts.append(f"CTR {format.percent(inspection.ctr)} by {inspection.label}")
    return " · ".join(parts)
