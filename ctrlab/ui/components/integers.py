"""The serving form that multiplies integers: its export, and what came of it."""

import streamlit as st

from ctrlab.figures.text import difference, size
from ctrlab.services import serving
from ctrlab.services.outside import abilities
from ctrlab.storage import Artifact
from ctrlab.ui import cache
from ctrlab.ui.components.job_progress import watch
from ctrlab.ui.feedback import guarded, sentence


def integers(model_id: str) -> None:
    """A button with what there is of a model's integer form; the download for serving then has its file."""
    workspace = cache.workspace()
    with st.popover("Integers", icon=":material/memory:"):
        st.caption(
            "An ONNX file whose tables are bytes and whose layers multiply bytes. It is compared with the float form row by row, "
            "and written only where it answers alike; the download for serving then has it."
        )
        if reason := abilities(workspace, workspace.store.artifacts.get(model_id)).why_not("serve"):
            st.info(reason, icon=":material/info:")
            return
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
