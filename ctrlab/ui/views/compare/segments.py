"""Where AUC was lost: the chosen model against the baseline, by segment and by row."""

import streamlit as st

from ctrlab.services import segments as service
from ctrlab.services.outside import abilities
from ctrlab.storage import Artifact
from ctrlab.ui import cache
from ctrlab.ui.components.downloads import download_table
from ctrlab.ui.components.figure import figure
from ctrlab.ui.components.task import task

#: Columns of the table of segments: title, and how numbers are written.
_COLUMNS = {
    "segment": ("Segment", None), "rows": ("Rows", "%,.0f"), "clicks": ("Clicks", "%,.0f"),
    "auc_reference": ("AUC before", "%.4f"),
    "auc": ("after", "%.4f"), "auc_change": ("Change", "%+.4f"), "auc_change_low": ("from", "%+.4f"),
    "auc_change_high": ("to", "%+.4f"), "log_loss_change": ("Log loss", "%+.4f"), "share": ("Share of the rise", "percent"),
}  # fmt: skip


def where_auc_was_lost(chosen: str, baseline: str, *, measured: bool) -> None:
    """The section; a button where the segments of these two were never measured.

    measured: whether both models have an AUC.
    """
    if not baseline or chosen == baseline or not measured:
        return
    workspace = cache.workspace()
    if reason := abilities(workspace, workspace.store.artifacts.get(chosen)).why_not("segments"):
        st.caption(reason)
        return
    st.markdown("**Where AUC and log loss were lost**")
    found = service.latest_segments(workspace, chosen, baseline)

    def submit() -> str:
        return service.submit_segments(workspace, service.SegmentsConfig(model_id=chosen, reference_id=baseline))

    if found is None:
        st.caption(
            "AUC and log loss by value of each field, score and frequency of the id; and the rows whose scores moved most."
        )
    task(
        "segments", "Find where AUC was lost", submit,
        belongs=lambda job: (job.config["model_id"], job.config["reference_id"]) == (chosen, baseline), show_button=found is None,
    )  # fmt: skip
    if found is not None:
        _segments(found)
        _rows(found)


def _segments(found: Artifact) -> None:
    table = service.segments_table(found)
    if table.empty:
        st.caption("No segment has 30 clicks and 30 non-clicks; measure on more rows.")
        return
    left, right = st.columns([5, 7], gap="large")
    with left:
        figure("segment_changes", table, key="segments-figure", file="segments", title="")
    with right:
        st.dataframe(
            table[list(_COLUMNS)], hide_index=True, key="segments-table", alt="Segments with their changes",
            column_config={
                key: title if form is None else st.column_config.NumberColumn(title, format=form)
                for key, (title, form) in _COLUMNS.items()
            },
        )  # fmt: skip
        left_out = found.summary["left_out"]
        st.caption(f"{left_out} segments with fewer than 30 clicks or 30 non-clicks are left out." if left_out else "")
        download_table(table, "segments", key="download-segments")


def _rows(found: Artifact) -> None:
    moved = service.moved_table(found)
    with st.expander(f"The {len(moved)} rows whose scores moved most"):
        st.dataframe(
            moved, hide_index=True, key="moved-rows", alt="Rows whose scores moved most",
            column_config={
                "row": "Row", "click": "Click", "before": st.column_config.NumberColumn("Score before", format="%.4f"),
                "after": st.column_config.NumberColumn("after", format="%.4f"),
            },
        )  # fmt: skip
        download_table(moved, "moved-rows", key="download-moved")
