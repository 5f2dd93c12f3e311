"""The form in which the user says which column is the label and what in it counts as a click."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from ctrlab.data.configs import ColumnConfig
from ctrlab.data.tables.labels import label_value
from ctrlab.errors import ConfigError
from ctrlab.ui import format
from ctrlab.ui.components.config_form import show_faults
from ctrlab.ui.feedback import escape

if TYPE_CHECKING:
    from ctrlab.data.tables.inspect import TableInspection
    from ctrlab.data.tables.label_candidates import LabelCandidate, LabelReading

_OTHER = "Other"
_VALUES, _THRESHOLD, _SHARE, _IMPRESSIONS = "Certain values", "From a number on", "A share of clicks", "Clicks of impressions"
_EMPTY = {"refuse": "Refuse the file", "drop": "Leave the row out", "negative": "No click"}


def label_form(inspection: "TableInspection", chosen: str | None, *, key: str) -> ColumnConfig | None:
    """Draw the form; returns the label column with the settings that read it, or None while something is open.

    Args:
        chosen: the column to start from; None where a person must choose it.
        key: prefix of the widgets' keys.
    """
    likely = [found.column for found in inspection.label_candidates]
    names = [*likely, *(column.name for column in inspection.columns if column.name not in likely)]
    left, right = st.columns([1, 2], gap="medium")
    with left:
        name = st.selectbox(
            "Label", names, index=None if chosen is None else names.index(chosen), key=f"{key}-label",
            placeholder="Choose the column that holds the clicks", persist_state="session",
            help="The column that says whether the row was clicked. Columns that could be it come first.",
        )  # fmt: skip
    if name is None:
        with right:
            none = "" if likely else "No column holds two usual values such as 0 and 1. "
            st.info(f"{none}Which column says whether there was a click? Choose it on the left.", icon=":material/help:")
        return None
    found = next((found for found in inspection.label_candidates if found.column == name), None)
    with right:
        reading = _reading(found, f"{key}-{name}")
        settings = reading.settings if reading is not None else _own_settings(inspection, name, found, f"{key}-{name}")
    if settings is None:
        return None
    try:
        return ColumnConfig(name=name, role="label", **settings)
    except ConfigError as error:
        show_faults(str(error).split(": ", 1)[-1].split("; "))
        return None


def _reading(found: "LabelCandidate | None", key: str) -> "LabelReading | None":
    """The reading chosen of those that were counted; None where the user sets it."""
    if found is None:
        return None
    readings = dict(enumerate(found.readings))
    picked = st.radio(
        "What counts as a click", [*readings, _OTHER], index=0 if len(readings) == 1 else None, key=f"{key}-reading",
        format_func=lambda option: _OTHER if option == _OTHER else _described(readings[option], found), persist_state="session",
    )  # fmt: skip
    if picked is None:
        st.caption("Choose one: the values do not say it by themselves.")
    return readings[picked] if isinstance(picked, int) else None


def _described(reading: "LabelReading", found: "LabelCandidate") -> str:
    share = format.percent(reading.clicks / reading.rows) if reading.rows else "0 %"
    words = reading.description
    if not reading.settings:
        words = " and ".join(text for text, _ in found.values if label_value(text) == 1.0) + " is a click"
    counts = f"{format.count(round(reading.clicks))} clicks in {format.count(reading.rows)} rows ({share})"
    return escape(f"{words[0].upper()}{words[1:]}: {counts}")


def _own_settings(
    inspection: "TableInspection", name: str, found: "LabelCandidate | None", key: str
) -> dict[str, Any] | None:  # fmt: skip
    """Settings of a reading that the user describes; None while it is incomplete."""
    if found is not None and st.session_state.get(f"{key}-reading") != _OTHER:
        return None
    ways = (_VALUES, _THRESHOLD, _SHARE, _IMPRESSIONS)
    way = st.segmented_control(
        "How the column says it", ways, default=_VALUES, required=True, key=f"{key}-way", persist_state="session"
    )
    settings: dict[str, Any] | None
    if way == _VALUES:
        texts = [text for text, _ in found.values] if found is not None else list(inspection.column[name].examples)
        picked = st.multiselect(
            "Values that mean a click", texts, accept_new_options=True, key=f"{key}-positive", persist_state="session"
        )
        settings = {"positive": tuple(picked)} if picked else None
    elif way == _THRESHOLD:
        threshold = st.number_input("A click from this number on", value=None, key=f"{key}-threshold", persist_state="session")
        settings = None if threshold is None else {"threshold": float(threshold)}
    elif way == _SHARE:
        settings = {"soft": True}
    else:
        others = [column.name for column in inspection.columns if column.name != name]
        total = st.selectbox("Column of impressions", others, index=None, key=f"{key}-total", persist_state="session")
        settings = None if total is None else {"label_total": total}
    empty = st.selectbox(
        "An empty cell", list(_EMPTY), format_func=_EMPTY.__getitem__, key=f"{key}-empty", persist_state="session"
    )
    return None if settings is None else settings | {"empty_label": empty}
