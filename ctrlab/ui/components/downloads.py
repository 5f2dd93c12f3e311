"""Buttons that download a table as CSV or a record as JSON."""

import json
import re
from typing import TYPE_CHECKING, Any

import streamlit as st

if TYPE_CHECKING:
    import pandas as pd


def file_name(*parts: str, suffix: str) -> str:
    """A portable file name made of `parts`: ("Sample ads", "fields"), "csv" -> sample-ads-fields.csv."""
    words = re.sub(r"[^a-z0-9.]+", "-", "-".join(parts).lower()).strip("-.")
    return f"{words or 'table'}.{suffix}"


def file_stem(*parts: str) -> str:
    """`file_name` without its suffix, as the toolbar of a chart wants it."""
    return file_name(*parts, suffix="").rstrip(".")


def download_table(table: "pd.DataFrame", *name: str, key: str | None = None) -> None:
    """A tertiary button that downloads `table` as CSV."""
    target = file_name(*name, suffix="csv")
    st.download_button(
        "CSV", lambda: table.to_csv(index=False), target, "text/csv", key=key or f"download-{target}", icon=":material/download:",
        type="tertiary", on_click="ignore", help=f"Save the table as {target}",
    )  # fmt: skip


def download_json(values: dict[str, Any], *name: str, label: str = "JSON", key: str | None = None) -> None:
    """A tertiary button that downloads `values` as JSON."""
    target = file_name(*name, suffix="json")
    st.download_button(
        label, json.dumps(values, indent=2), target, "application/json", key=key or f"download-{target}",
        icon=":material/download:", type="tertiary", on_click="ignore", help=f"Save as {target}",
    )  # fmt: skip
