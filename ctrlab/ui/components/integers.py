"""What came of the export of a serving form that multiplies integers."""

import streamlit as st

from ctrlab.figures.text import difference, size
from ctrlab.services import serving
from ctrlab.storage import Artifact
from ctrlab.ui import cache


def integers(model_id: str) -> None:
    """What came of a model's integer form, if it was exported."""
    made = serving.latest_integers(cache.workspace(), model_id)
    if made is not None:
        st.caption(f"In integers: {_said(made)}.")


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
