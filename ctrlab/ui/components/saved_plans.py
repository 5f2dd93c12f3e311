"""Plans by name and as files: save the one in hand, take another, hand one on."""

from collections.abc import Callable, Mapping

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.plans.configs import RankPlan
from ctrlab.services import plans as service
from ctrlab.ui import cache
from ctrlab.ui.components.downloads import download_json
from ctrlab.ui.feedback import escape, sentence

_UPLOAD, _NAME, _FAULT = "plan-upload", "plan-name", "plan-fault"


def saved_plans(model_id: str, model_name: str, plan: RankPlan, take: Callable[[Mapping[str, int]], None]) -> None:
    """A popover with everything about plans that outlive the session.

    Args:
        plan: in hand. take: called with the ranks of a chosen one; layers it leaves out are dense.
    """
    popover = st.popover("Plans", icon=":material/bookmark:", key="saved-plans", on_change="rerun")
    if not popover.open:
        return
    with popover:
        _save(model_id, plan)
        for saved in service.list_plans(cache.workspace(), model_id):
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.markdown(escape(saved.name), width="stretch")
                ranks = RankPlan.from_dict(saved.config).as_dict()
                st.button("Take", key=f"take-{saved.id}", on_click=take, args=(ranks,))
                st.button(
                    f"Delete {saved.name}", key=f"delete-{saved.id}", icon=":material/delete:", type="tertiary",
                    on_click=service.delete_plan, args=(cache.workspace(), saved.id),
                )  # fmt: skip
        download_json(plan.to_dict(), model_name, "plan", label="This plan as JSON", key="plan-json")
        st.file_uploader(
            "Take a plan from JSON", "json", key=_UPLOAD, on_change=_take_file, args=(model_id, take),
            help='Saved here or by the command line, or written by hand: {"mlp.2": 64, "embedding.ad": 4}.',
        )  # fmt: skip
        if fault := st.session_state.pop(_FAULT, None):
            st.error(sentence(fault), icon=":material/error:")


def _save(model_id: str, plan: RankPlan) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.text_input("Name of this plan", key=_NAME, max_chars=60, placeholder="third of the size", width="stretch")
        st.button(
            "Save", icon=":material/save:", key="save-plan", disabled=not len(plan), on_click=_save_plan, args=(model_id, plan)
        )


def _save_plan(model_id: str, plan: RankPlan) -> None:
    """A callback draws nothing: what is wrong is kept for the run that follows."""
    name = st.session_state[_NAME].strip()
    try:
        service.save_plan(cache.workspace(), model_id, name or f"plan of {len(plan)} layers", plan)
        st.session_state[_NAME] = ""
    except CtrlabError as error:
        st.session_state[_FAULT] = str(error)


def _take_file(model_id: str, take: Callable[[Mapping[str, int]], None]) -> None:
    """A callback draws nothing: what is wrong with the file is kept for the run that follows."""
    file = st.session_state.get(_UPLOAD)
    if file is None:
        return
    try:
        take(service.plan_from_json(cache.workspace(), model_id, file.getvalue().decode("utf-8", errors="replace")).as_dict())
    except CtrlabError as error:
        st.session_state[_FAULT] = str(error)
