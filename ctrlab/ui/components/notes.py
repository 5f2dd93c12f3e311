"""Notes on a table or a dataset as a list: the most serious first, many of one kind folded, a control beside each."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import streamlit as st

from ctrlab.data.tables.notes import Note
from ctrlab.ui import format
from ctrlab.ui.feedback import sentence

_RANK = {"fault": 0, "warning": 1, "info": 2}
_ICONS = {"fault": ":red[:material/error:]", "warning": ":orange[:material/warning:]", "info": ":gray[:material/info:]"}
#: Notes of one kind that are shown before the others are folded.
_SHOWN = 3

#: {kind of note: draws the control that mends what such a note says}, called with the note and a key for the widget.
Remedies = Mapping[str, Callable[[Note, str], None]]


def notes_list(notes: Sequence[Note], *, key: str, remedies: Remedies | None = None) -> None:
    """Draw the notes; nothing where there are none.

    Args:
        key: prefix of the widgets' keys.
        remedies: controls drawn at the end of a note's line.
    """
    ordered = sorted(notes, key=lambda note: (_RANK[note.severity], note.kind))
    with st.container(gap="xsmall", key=f"{key}-notes"):
        for (_, kind), group in groupby(ordered, key=lambda note: (_RANK[note.severity], note.kind)):
            alike = list(group)
            for number, note in enumerate(alike[:_SHOWN]):
                _line(note, f"{key}-{kind}-{number}", remedies or {})
            if rest := alike[_SHOWN:]:
                with st.expander(f"{format.plural(len(rest), 'more note')} of this kind"):
                    for number, note in enumerate(rest, _SHOWN):
                        _line(note, f"{key}-{kind}-{number}", remedies or {})


def _line(note: Note, key: str, remedies: Remedies) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key):
        remedy = f" {sentence(note.remedy)}" if note.remedy else ""
        st.markdown(f"{_ICONS[note.severity]} {sentence(note.text)}{remedy}", width="stretch")
        if note.kind in remedies:
            remedies[note.kind](note, key)
