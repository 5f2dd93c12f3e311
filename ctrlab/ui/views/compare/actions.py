"""What can be done with the chosen model and with the comparison: take it away, mark it, repeat it."""

from typing import TYPE_CHECKING

import streamlit as st

from ctrlab.reports.html_report import as_command, as_python, html_report
from ctrlab.services import models, timing
from ctrlab.services.annotations import annotate
from ctrlab.services.outside import abilities
from ctrlab.ui import cache
from ctrlab.ui.components.bundle import bundle_options, download_for_serving
from ctrlab.ui.components.comparison import Shown
from ctrlab.ui.components.job_progress import watch
from ctrlab.ui.feedback import guarded

if TYPE_CHECKING:
    import pandas as pd

#: More models are not timed in one job: the rounds would take many minutes.
_TIMED = 12


def actions(table: "pd.DataFrame", shown: Shown, baseline: str | None) -> None:
    """A row of buttons; the first ones concern the chosen model."""
    row = table[table["id"] == shown.chosen].iloc[0]
    model = cache.workspace().store.artifacts.get(shown.chosen)
    download_for_serving(model)
    bundle_options(model)
    _report(table, shown, baseline)
    if len(table) > 1:
        _time_again(table, shown.chosen, baseline)
    with st.popover("As code", icon=":material/code:"):
        ids = table["id"].tolist()
        st.caption("On the command line")
        st.code(as_command(ids, baseline), language="bash", wrap_lines=True)
        st.caption("In Python")
        st.code(as_python(ids, baseline), language="python", wrap_lines=True)
    _mark(row)


def _report(table: "pd.DataFrame", shown: Shown, baseline: str | None) -> None:
    title = f"Comparison of {len(table)} models" if len(table) > 1 else str(table["name"].iloc[0])
    st.download_button(
        "Report", lambda: html_report(table, title=title, baseline=baseline, chosen=shown.chosen, view=shown.view),
        "comparison.html", "text/html", key="download-report", icon=":material/description:", on_click="ignore",
        help="This comparison as one HTML file that needs no server.",
    )  # fmt: skip


def _time_again(table: "pd.DataFrame", chosen: str, baseline: str | None) -> None:
    """Times all models in turns, or of many the chosen one and the baseline; disabled where one cannot be timed."""
    ids, workspace = table["id"].tolist(), cache.workspace()
    reasons = [abilities(workspace, model).why_not("time") for model in models.require_models(workspace, ids)]
    reason = next(filter(None, reasons), "")
    timed = ids if len(ids) <= _TIMED else list(dict.fromkeys([baseline or ids[0], chosen]))
    what = "all models" if timed == ids else "the chosen model and the baseline"
    if st.button(
        "Time again", icon=":material/timer:", key="time-again",
        disabled=bool(reason), help=reason or f"Time {what} in turns in one job; best on a quiet machine.",
    ):  # fmt: skip
        with guarded() as outcome:
            watch(timing.submit_timing(workspace, timing.TimeConfig(model_ids=tuple(timed))))
        if not outcome.failed:
            st.rerun()


def _mark(row: "pd.Series") -> None:
    """Star and note of the chosen model."""
    model_id, starred, note = str(row["id"]), bool(row["star"]), str(row["note"])
    workspace = cache.workspace()
    icon = ":material/star:" if starred else ":material/star_border:"
    if st.button("Remove star" if starred else "Star", icon=icon, key=f"star-{model_id}"):
        with guarded() as outcome:
            annotate(workspace, model_id, star=not starred)
        if not outcome.failed:
            st.rerun()
    with st.popover("Note", icon=":material/edit_note:"):
        text = st.text_area(
            "Note", note, key=f"note-{model_id}-{note}", label_visibility="collapsed", placeholder="About this model"
        )
        if st.button("Save note", key=f"save-note-{model_id}", disabled=text == note):
            with guarded() as outcome:
                annotate(workspace, model_id, note=text or "")
            if not outcome.failed:
                st.rerun()
