"""Managing stored things on a page: name, note, tags, star, archive, and deleting with a preview and an undo."""

from collections.abc import Callable, Collection, Sequence
from functools import partial

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.services import annotations, deletion
from ctrlab.services.annotations import Subject
from ctrlab.storage.annotations import MAX_TAG_LENGTH
from ctrlab.storage.records import MAX_NAME_LENGTH
from ctrlab.ui import cache, format, state
from ctrlab.ui.feedback import escape, guarded, sentence

_UNDO, _FAULT = "manage-undo", "manage-fault"


def manage_button(subject: Subject) -> None:
    """A popover with everything that can be done with one artifact or job, for the page that shows it."""
    popover = st.popover("Manage", icon=":material/edit_note:", key=f"manage-{subject.id}", on_change="rerun")
    if popover.open:
        with popover:
            edit(subject)
            delete_panel([subject])


def edit(subject: Subject) -> None:
    """A form of name, note and tags, and the buttons that star and archive."""
    known = annotations.all_tags([*cache.workspace().store.artifacts.list(), *cache.workspace().store.jobs.list()])
    with st.form(f"edit-{subject.id}", border=False):
        name = st.text_input("Name", annotations.name_of(subject), max_chars=MAX_NAME_LENGTH, key=f"name-{subject.id}")
        tags = st.multiselect(
            "Tags", known, subject.annotation.tags, key=f"tags-{subject.id}", accept_new_options=True,
            placeholder=f"Choose or type, up to {MAX_TAG_LENGTH} characters",
        )  # fmt: skip
        note = st.text_area("Note", subject.annotation.note, key=f"note-{subject.id}", height=80)
        saved = st.form_submit_button("Save", icon=":material/save:", type="primary")
    if saved:
        with guarded() as outcome:
            annotations.annotate(cache.workspace(), subject.id, name=name, tags=tags, note=note)
        if not outcome.failed:
            st.rerun()
    marks([subject])


def marks(subjects: Sequence[Subject]) -> None:
    """The buttons that star and archive, or undo both where all are."""
    starred = all(found.annotation.star for found in subjects)
    archived = all(found.annotation.archived for found in subjects)
    with st.container(horizontal=True, gap="small"):
        _mark(subjects, "Unstar" if starred else "Star", ":material/star:", star=not starred)
        _mark(subjects, "Unarchive" if archived else "Archive", ":material/archive:", archived=not archived)


def _mark(subjects: Sequence[Subject], label: str, icon: str, **change: bool) -> None:
    ids = [found.id for found in subjects]
    kind = next(iter(change))
    key = f"{kind}-{'-'.join(ids)}"[:200]
    st.button(label, icon=icon, key=key, on_click=attempt, args=(partial(_annotate_all, ids, **change),))


def attempt(action: Callable[[], object]) -> None:
    """For a button's `on_click`: a callback cannot draw, so the sentence of an error is kept for `outcome`."""
    try:
        action()
    except CtrlabError as error:
        st.session_state[_FAULT] = str(error)


def _annotate_all(ids: Sequence[str], star: bool | None = None, archived: bool | None = None) -> None:
    for subject_id in ids:
        annotations.annotate(cache.workspace(), subject_id, star=star, archived=archived)


def delete_panel(subjects: Sequence[Subject]) -> None:
    """A popover with what deleting would delete, and the button that does it."""
    ids = [found.id for found in subjects]
    key = "-".join(ids)[:200]
    label = "Delete" if len(ids) == 1 else f"Delete {len(ids)}"
    popover = st.popover(label, icon=":material/delete:", key=f"delete-{key}", on_change="rerun")
    if not popover.open:
        return
    with popover, guarded():
        planned = deletion.deletion_of(cache.workspace(), ids)
        st.markdown(_preview(planned))
        if planned.models:
            st.warning("Models made from it: " + _names(planned.models) + ".", icon=":material/warning:")
        for_good = st.toggle("Free the disk at once", key=f"for-good-{key}", help="Without the trash; it cannot be restored.")
        st.button(
            f"Delete {format.plural(len(planned.ids), 'item')}", key=f"confirm-{key}", type="primary", icon=":material/delete:",
            on_click=attempt, args=(partial(_delete, ids, for_good),),
        )  # fmt: skip


def _preview(planned: deletion.Deletion) -> str:
    with_it = f" with {planned.dependents_text}" if planned.dependents else ""
    return f"**{_names(planned.subjects)}**{with_it}: {format.size(planned.size_bytes)}. The trash keeps it for 30 days."


def _names(found: Sequence[Subject], most: int = 5) -> str:
    names = ", ".join(escape(annotations.name_of(subject)) for subject in found[:most])
    return names + (f" and {len(found) - most} more" if len(found) > most else "")


def _delete(ids: Sequence[str], for_good: bool) -> None:
    workspace = cache.workspace()
    planned = deletion.deletion_of(workspace, ids)
    entry = deletion.delete(workspace, ids, cascade=True, permanently=for_good)
    deselect(planned.ids)
    st.session_state[_UNDO] = (_preview(planned).partition(". ")[0], None if for_good else entry.id)


def deselect(ids: Collection[str]) -> None:
    """Take deleted artifacts and jobs out of the selection."""
    selection = state.current()
    gone: dict[str, str | None] = {key: None for key in state.KEYS if getattr(selection, key) in ids}
    if gone:
        state.select(**gone, **({} if "job" in gone else {"job": None}))


def outcome() -> None:
    """What the last action did, with the way back, or why it did not; call it once on a page that manages."""
    if fault := st.session_state.pop(_FAULT, None):
        st.error(sentence(fault), icon=":material/error:")
    text, entry = st.session_state.get(_UNDO, ("", None))
    if not text:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="undo-delete"):
        st.success(f"Deleted {text}.", icon=":material/delete:", width="stretch")
        if entry is not None:
            st.button("Undo", icon=":material/undo:", key="undo-deletion", on_click=attempt, args=(partial(_undo, entry),))
        st.button("Dismiss", icon=":material/close:", key="dismiss-deletion", type="tertiary", on_click=_forget)


def _undo(entry_id: str) -> None:
    _forget()
    deletion.restore(cache.workspace(), entry_id)


def _forget() -> None:
    st.session_state.pop(_UNDO, None)
