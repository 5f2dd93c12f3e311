"""The Storage page: disk by kind with what can be freed, a searchable table of everything stored, and the trash."""

import streamlit as st

from ctrlab.ui import address
from ctrlab.ui.components import manage
from ctrlab.ui.views.storage.disk import disk
from ctrlab.ui.views.storage.library import KINDS, library
from ctrlab.ui.views.storage.trash import trash

_KIND = "kind"
_TRASH = "Trash"


def render() -> None:
    """The page."""
    manage.outcome()
    disk()
    choices = [*KINDS, _TRASH]
    if (key := "storage-kind") not in st.session_state:
        linked = address.start(_KIND)
        st.session_state[key] = linked if linked in choices else "Models"
    kind = st.segmented_control("What", choices, key=key, required=True, label_visibility="collapsed")
    address.write(_KIND, "" if kind == "Models" else str(kind))
    if kind == _TRASH:
        trash()
    else:
        library(str(kind))
