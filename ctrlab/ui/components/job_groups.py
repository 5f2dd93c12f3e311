"""Groups of jobs: the progress of each as one, its cancellation, and the comparison of what it made."""

from functools import partial

import streamlit as st

from ctrlab.services import sweeps
from ctrlab.services.sweeps import GroupState
from ctrlab.ui import cache, state
from ctrlab.ui.components import manage
from ctrlab.ui.feedback import escape
from ctrlab.ui.navigation import PAGES

#: Groups without an active job beyond these are not shown.
_SHOWN = 5


def job_groups() -> None:
    """The active groups and the newest others; nothing where there is none."""
    groups = sweeps.list_groups(cache.workspace())
    shown = [group for number, group in enumerate(groups) if group.active or number < _SHOWN]
    for group in shown:
        _group(group)


def _group(group: GroupState) -> None:
    with st.container(border=True, key=group.id):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**{escape(group.name)}**", width="stretch")
            _compare(group)
            if group.active:
                _button(group, "Cancel all", ":material/stop_circle:", sweeps.cancel_group)
            elif any(job.retryable for job in group.jobs):
                _button(group, "Retry the rest", ":material/refresh:", sweeps.retry_group)
        st.progress(group.progress, text=group.sentence)


def _button(group: GroupState, label: str, icon: str, action: "sweeps.GroupAction") -> None:
    run = partial(action, cache.workspace(), group.id)
    st.button(label, icon=icon, key=f"{label.split()[0].lower()}-{group.id}", on_click=manage.attempt, args=(run,))


def _compare(group: GroupState) -> None:
    """A link to the comparison of the models that there are, with the original first."""
    there = cache.workspace().store.artifacts.present(group.models)
    models = [model_id for model_id in group.models if model_id in there]
    if not models:
        return
    original = str(group.jobs[0].config.get("model_id", ""))
    page = PAGES["Compare"]
    params = state.current().params(job=None, model=original) | {"models": ",".join([original, *models])}
    st.page_link(page.path, label=f"Compare {len(models)}", icon=page.icon, query_params=params)
