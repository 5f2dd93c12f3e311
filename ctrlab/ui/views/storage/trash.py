"""The trash: what was deleted, newest first, to be restored or deleted for good."""

from datetime import UTC, datetime, timedelta
from functools import partial

import streamlit as st

from ctrlab.services import deletion
from ctrlab.storage.trash import KEEP, TrashEntry
from ctrlab.ui import cache, format
from ctrlab.ui.components import manage
from ctrlab.ui.feedback import escape

_SHOWN = 50


def trash() -> None:
    """The entries of the trash, each with its buttons."""
    entries = deletion.trash_entries(cache.workspace())
    if not entries:
        st.caption("The trash is empty.")
        return
    total = format.size(sum(entry.size_bytes for entry in entries))
    st.caption(f"{format.plural(len(entries), 'deletion')}, {total}. Each is deleted for good after {KEEP.days} days.")
    for entry in entries[:_SHOWN]:
        _row(entry)
    if len(entries) > _SHOWN:
        st.caption(f"{len(entries) - _SHOWN} older ones are not shown; `ctrlab storage` lists them.")


def _row(entry: TrashEntry) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"trash-{entry.id}"):
        st.markdown(_contents(entry), width="stretch")
        left = max(timedelta(), entry.removed_at + KEEP - datetime.now(UTC))
        st.caption(f"{format.size(entry.size_bytes)} · {format.plural(left.days, 'day')} left", width="content")
        st.button(
            "Restore", key=f"restore-{entry.id}", icon=":material/restore_from_trash:", disabled=not entry.items,
            on_click=manage.attempt, args=(partial(deletion.restore, cache.workspace(), entry.id),),
            help=None if entry.items else "Left behind by a crash; it belongs to nothing that is stored.",
        )  # fmt: skip
        st.button(
            "Delete for good", key=f"purge-{entry.id}", icon=":material/delete_forever:", type="tertiary",
            on_click=manage.attempt, args=(partial(deletion.empty_trash, cache.workspace(), [entry.id]),),
        )  # fmt: skip


def _contents(entry: TrashEntry) -> str:
    if not entry.items:
        return escape(entry.name)
    first, *rest = entry.items
    return f"**{escape(first.name)}** ({first.kind})" + (f" and {format.plural(len(rest), 'item')} made from it" if rest else "")
