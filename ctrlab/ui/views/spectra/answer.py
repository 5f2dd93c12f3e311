"""The card at the top of the Spectra page: what the spectra say of the whole model, and the way on."""

import streamlit as st

from ctrlab.reports.headroom import details, headline
from ctrlab.services import spectra as service
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact
from ctrlab.ui import cache, state
from ctrlab.ui.feedback import escape
from ctrlab.ui.navigation import PAGES


def answer(workspace: Workspace, model_id: str, spectra: Artifact) -> None:
    """Two sentences, the rows they were measured on, and *Choose ranks*."""
    found = cache.headroom(workspace, model_id, spectra.id)
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="answer"):
        with st.container(gap="xsmall", width="stretch", key="answer-text"):
            if found is None:
                st.markdown("**No layer of this model has a spectrum.**")
                return
            st.subheader(headline(found), anchor=False)
            st.markdown(escape(details(found)))
            st.caption(_rows(spectra))
        if cache.model_profile(workspace, model_id).compressed:
            return
        with st.container(width="content", key="choose-ranks"):
            st.page_link(
                PAGES["Compress"].path, label="Choose ranks", icon=":material/arrow_forward:",
                query_params=state.current().params(job=None),
            )  # fmt: skip


def _rows(spectra: Artifact) -> str:
    rows, split = spectra.summary.get("calibration_rows"), spectra.summary.get("split", service.SpectraConfig.split)
    if split == "weights":
        return (
            "Of the weights alone, as if the inputs of a layer were independent and alike and every id equally frequent: "
            "the file has no architecture to run rows through."
        )
    if split == "registered":
        return f"Computed over {rows:,} rows that the model was registered with."
    return f"Computed over {rows:,} rows of the {split} split." if rows else f"Computed over the {split} split."
