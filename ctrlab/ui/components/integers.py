"""The serving form that multiplies integers: its export, and what came of it."""

import streamlit as st

from ctrlab.figures.text import difference, size
from ctrlab.services import serving
from ctrlab.storage import Artifact
from ctrlab.ui import cache
from ctrlab.ui.components.job_progress import watch
from ctrlab.ui.feedback import guarded, sentence


def integers(model_id: str) -> None:
    """What there is of a model's integer form, and the button that exports it."""
    workspace = cache.workspace()
    st.caption(
        "In integers, tables are bytes and layers multiply bytes. The form is compared with the float one row by row, and "
        "written only where it answers alike."
    )
    made = serving.latest_integers(workspace, model_id)
    if made is not None:
        st.markdown(sentence(_said(made)))
    if st.button("Export again" if made else "Export in integers", key=f"integers-{model_id}"):
        with guarded() as outcome:
            watch(serving.submit_integers(workspace, serving.IntegersConfig(model_id=model_id)))
        if not outcome.failed:
            st.rerun()


def _said(made: Artifact) -> str:
    """The advice, and how far the answers moved."""
    summary = made.summary
    if summary["refused"]:
        return str(summary["advice"])
    change = summary["auc_change"]
    moved = f"a probability moves by {summary['largest_change']:.4f} at most on {summary['rows']:,} rows"
    ends = f"{difference(change['low'])} to {difference(change['high'])}" if change else ""
    auc = f", AUC by {difference(change['estimate'])} (95 % {ends})" if change else ""
    return (
        f"{summary['advice']}. {moved[0].upper()}{moved[1:]}{auc}; {size(summary['bytes'])}, not {size(summary['float_bytes'])}"
    )
