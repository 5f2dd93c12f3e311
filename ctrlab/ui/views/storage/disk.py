"""What the home takes on disk, kind by kind, and what can be freed, with one button."""

from functools import partial

import streamlit as st

from ctrlab.services import disk as service
from ctrlab.services.disk import DiskUse, Freeable
from ctrlab.ui import cache, format
from ctrlab.ui.components import manage
from ctrlab.ui.feedback import escape, guarded

#: Freed unless that is declined: what nobody can miss.
_HARMLESS = ("uploads", "duplicates", "checkpoints")
_DONE = "storage-freed"


def disk() -> None:
    """The bar of sizes by kind, and the panel that frees."""
    workspace = cache.workspace()
    uses = service.disk_use(workspace)
    total = sum(use.size_bytes for use in uses)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="disk-head"):
        st.markdown(f"**{format.size(total)}** in `{escape(str(workspace.home))}`", width="content")
        opened = st.popover("Free space", icon=":material/cleaning_services:", key="free-space", on_change="rerun")
    st.html(_bar(uses, total))
    if done := st.session_state.pop(_DONE, None):
        st.success(done, icon=":material/check_circle:")
    if opened.open:
        with opened, guarded():
            _free(service.freeable(workspace))


def _bar(uses: list[DiskUse], total: int) -> str:
    """Sizes by kind as one bar with a legend; the widths are shares of the home."""
    parts = "".join(
        f'<span class="part k{number}" style="flex:{max(use.size_bytes / max(total, 1), 0.004):.4f}"></span>'
        for number, use in enumerate(uses)
        if use.size_bytes
    )
    legend = "".join(
        f'<span><i class="part k{number}"></i>{use.kind} <b>{format.size(use.size_bytes)}</b> <small>{use.count:,}</small></span>'
        for number, use in enumerate(uses)
        if use.size_bytes
    )
    bar = f'<div class="disk" role="img" aria-label="{_words(uses)}"><div class="bar">{parts}</div></div>'
    return f'{bar}<div class="disk-legend">{legend}</div>'


def _words(uses: list[DiskUse]) -> str:
    return ", ".join(f"{use.kind} {format.size(use.size_bytes)}" for use in uses if use.size_bytes)


def _free(found: list[Freeable]) -> None:
    """What can be freed, each with its consequence, and the button that frees the chosen ones."""
    if not found:
        st.markdown("Nothing to free: no result would be kept without its files.")
        return
    chosen = [
        item
        for item in found
        if st.checkbox(
            f"{item.title}: {format.size(item.size_bytes)}", item.key in _HARMLESS, key=f"free-{item.key}", help=item.consequence
        )
    ]
    for item in chosen:
        st.caption(f"{format.plural(len(item.paths), 'item')}. {item.consequence}" if len(found) > 1 else item.consequence)
    st.button(
        f"Free {format.size(sum(item.size_bytes for item in chosen))}", type="primary", key="free-now", disabled=not chosen,
        icon=":material/cleaning_services:", on_click=manage.attempt, args=(partial(_clean, [item.key for item in chosen]),),
    )  # fmt: skip


def _clean(keys: list[str]) -> None:
    freed = service.clean(cache.workspace(), keys)
    st.session_state[_DONE] = f"Freed {format.size(sum(item.size_bytes for item in freed))}."
