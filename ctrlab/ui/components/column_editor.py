"""The table in which the user corrects the inferred role and settings of each column."""

import math
import typing
from typing import TYPE_CHECKING, Any

import streamlit as st

from ctrlab.data.configs import FEATURE_ROLES, ColumnConfig, ListFormat, NumberFormat, Role, Transform
from ctrlab.ui import format

if TYPE_CHECKING:
    import pandas as pd

    from ctrlab.data.tables.inspect import TableInspection

_EDITABLE = (
    "role", "min_count", "transform", "num_buckets", "number_format", "timestamp_format", "trim", "separator", "list_format",
    "max_length", "shares",
)  # fmt: skip


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
            "role": st.column_config.SelectboxColumn(
                "Role", options=list(typing.get_args(Role)), required=True, help="Exactly one column is the label."
            ),
            "min_count": st.column_config.NumberColumn(
                "Minimum count", min_value=1, step=1, help="Categorical, list: rarer values share the out-of-vocabulary id."
            ),
            "transform": st.column_config.SelectboxColumn(
                "Transform", options=list(typing.get_args(Transform)), required=True, help=_help("transform")
            ),
            "num_buckets": st.column_config.NumberColumn("Buckets", min_value=2, step=1, help="Numeric, quantile only."),
            "number_format": st.column_config.SelectboxColumn(
                "Numbers as", options=list(typing.get_args(NumberFormat)), required=True, help=_help("number_format")
            ),
            "timestamp_format": st.column_config.TextColumn("Times as", help=_help("timestamp_format")),
            "trim": st.column_config.CheckboxColumn("Trim blanks", help=_help("trim")),
            "list_format": st.column_config.SelectboxColumn(
                "Lists as", options=list(typing.get_args(ListFormat)), help=_help("list_format")
            ),
            "separator": st.column_config.TextColumn("Separator", help=_help("separator")),
            "max_length": st.column_config.NumberColumn("Longest list", min_value=1, step=1, help=_help("max_length")),
            "shares": st.column_config.SelectboxColumn("Shares ids with", options=list(table["name"]), help=_help("shares")),
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


def _settings(row: dict[str, Any]) -> dict[str, Any]:
    defaults = {name: ColumnConfig.__dataclass_fields__[name].default for name in ("min_count", "num_buckets", "max_length")}
    settings: dict[str, Any] = {name: row[name] for name in ("name", "role", "transform", "number_format")}
    settings["trim"] = bool(row["trim"])
    for name, default in defaults.items():
        empty = row[name] is None or math.isnan(row[name])
        settings[name] = default if empty else int(row[name])
    for name in ("timestamp_format", "separator", "list_format", "shares"):
        text = row[name]
        settings[name] = text if isinstance(text, str) and text else None
    return settings


def _help(setting: str) -> str:
    return str(ColumnConfig.__dataclass_fields__[setting].metadata["help"])


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
