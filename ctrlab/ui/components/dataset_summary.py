"""The summary of an encoded dataset: rows and CTR of its splits, ids and frequencies of its fields."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from ctrlab.data.tables.notes import notes_from
from ctrlab.storage import Artifact
from ctrlab.ui import cache, format
from ctrlab.ui.components.downloads import download_json, download_table
from ctrlab.ui.components.figure import figure
from ctrlab.ui.components.notes import notes_list

if TYPE_CHECKING:
    import pandas as pd

_PART_NAMES = {"train": "Training", "valid": "Validation", "test": "Test", "finetune": "Fine-tuning"}


def dataset_overview(dataset: Artifact) -> None:
    """Draw splits, charts of the categorical fields, and the table of all fields."""
    summary = cache.dataset_summary(cache.workspace(), dataset.id)
    table = field_table(summary)
    _parts(summary)
    notes_list(notes_from(summary.get("notes", ())), key="dataset")
    categorical = table[table["kind"] == "categorical"]
    if len(categorical):
        left, right = st.columns(2, gap="large")
        with left:
            figure("cardinalities", table, key="cardinalities", file=f"{dataset.name} cardinalities", topic="encoding")
        with right:
            figure("head_shares", table, key="head-shares", file=f"{dataset.name} head shares", topic="encoding")
    _fields(dataset, table)


def field_table(summary: dict[str, Any]) -> "pd.DataFrame":
    """One row a field: the entries of its summary, with the share out of vocabulary of each split as a column."""
    import pandas as pd

    rows = [
        {name: value for name, value in field.items() if name != "oov_by_split"}
        | {f"oov_{split}": share for split, share in field.get("oov_by_split", {}).items()}
        for field in summary["fields"]
    ]
    return pd.DataFrame(rows)


def _parts(summary: dict[str, Any]) -> None:
    """Rows and CTR of every split, then the number of fields and ids and the size on disk."""
    parts = list(summary["rows"])
    for column, part in zip(st.columns(max(len(parts), 3)), parts, strict=False):
        column.metric(
            _PART_NAMES.get(part, part), f"{format.count(summary['rows'][part])} rows", border=True,
            delta=f"CTR {format.percent(summary['ctr'][part])}", delta_color="off", delta_arrow="off",
        )  # fmt: skip
    with st.container(key="dataset-size"):
        fields = summary["fields"]
        kinds = [field["kind"] for field in fields]
        counted = [
            f"{kinds.count(kind)} {kind}" for kind in ("categorical", "numeric", "list") if kind != "list" or kind in kinds
        ]
        ids = sum(field["cardinality"] for field in fields)
        unreadable = sum(field["unreadable"] for field in fields)
        words = [
            f"{' and '.join(counted)} fields",
            f"{format.count(ids)} ids",
            f"{format.size(summary['size_bytes'])} on disk",
        ]
        if unreadable:
            words.append(f"{format.count(unreadable)} unreadable cells, counted as missing")
        st.caption(" · ".join(words))


def _fields(dataset: Artifact, table: "pd.DataFrame") -> None:
    st.subheader("Fields", anchor=False)
    share = st.column_config.ProgressColumn
    st.dataframe(
        table,
        hide_index=True,
        key="fields",
        height=min(38 + 35 * len(table), 460),
        column_order=["name", "kind", "cardinality", "missing_share", "oov_share", "head_share"],
        alt="Every field with its kind, number of ids, and shares of missing, unseen and most frequent values",
        column_config={
            "name": st.column_config.TextColumn("Field", pinned=True),
            "kind": st.column_config.TextColumn("Kind"),
            "cardinality": st.column_config.NumberColumn("Ids", format="localized", help="Number of ids in use."),
            "missing_share": share(
                "Missing", format="percent", min_value=0, max_value=1, help="Share of training rows without a value."
            ),
            "oov_share": share(
                "Unseen", format="percent", min_value=0, max_value=1,
                help="Share of the rows outside the training split whose value is missing from the vocabulary.",
            ),
            "head_share": share(
                "Head", format="percent", min_value=0, max_value=1, help="Share of training rows with one of the top 1 % of ids."
            ),
        },
    )  # fmt: skip
    with st.container(horizontal=True, key="fields-downloads"):
        download_table(table, dataset.name, "fields")
        download_json(dataset.config, dataset.name, "config", label="Config")
