"""What a page shows that needs a model and has none: a picker over the stored models, or the way to a first one."""

import streamlit as st

from ctrlab.services import models
from ctrlab.ui import cache, state
from ctrlab.ui.components.artifact_picker import artifact_picker
from ctrlab.ui.feedback import empty


def model_chooser(why: str) -> None:
    """A select box over all models; without any, the page that makes one.

    Args:
        why: one sentence, what the page needs the model for.
    """
    known = models.list_models(cache.workspace())
    if not known:
        empty("No model yet", f"{why} Train one on your data, or open the sample.", "Home", "Start with the sample")
        return
    st.markdown(f"{why} Choose one:")
    artifact_picker("model", known, label="Model")
    if state.current().model is not None:
        st.rerun()
