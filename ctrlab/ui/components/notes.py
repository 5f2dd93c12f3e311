"""Notes on a table or a dataset as a list: the most serious first, many of one kind folded, a control beside each."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import streamlit as st

from ctrlab.data.tables.notes import Note
from ctrlab.ui import format
from ctrlab.ui.feedback import escape, sentence

_RANK = {"fault": 0, "warning": 1, "info": 2}
_ICONS = {"fault": ":red[:material/error:]", "warning": ":orange[:material/warning:]", "info": ":gray[:material/info:]"}
#: Notes of one kind that are all shown; of more, one is shown and the others are folded, with some of their columns named.
_SHOWN, _NAMED = 3, 5

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
            shown = len(alike) if len(alike) <= _SHOWN else 1
            for number, note in enumerate(alike[:shown]):
                _line(note, f"{key}-{kind}-{number}", remedies or {})
            if rest := alike[shown:]:
                columns = f": {', '.join(str(note.column) for note in rest[:_NAMED])}, ..." if rest[0].column else ""
                with st.expander(escape(f"The same of {format.plural(len(rest), 'more column')}{columns}")):
                    for number, note in enumerate(rest, shown):
                        _line(note, f"{key}-{kind}-{number}", remedies or {})


def _line(note: Note, key: str, remedies: Remedies) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=key):
        remedy = f" {sentence(note.remedy)}" if note.remedy else ""
        st.markdown(f"{_ICONS[note.severity]} {_text(note)}{remedy}", width="stretch")
        if note.kind in remedies:
            remedies[note.kind](note, key)


def _text(note: Note) -> str:
    """The text as a sentence; a column's name at its beginning stays as it is."""
    if note.column and note.text.startswith(note.column):
        return f"**{escape(note.column)}**{escape(note.text.removeprefix(note.column))}."
    return sentence(note.text)
