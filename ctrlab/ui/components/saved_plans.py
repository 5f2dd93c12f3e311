"""Saved plans: save the current one by name, apply or delete others, read and write them as JSON."""

from collections.abc import Callable, Mapping

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.plans.configs import RankPlan
from ctrlab.services import plans as service
from ctrlab.ui import cache
from ctrlab.ui.components.downloads import download_json
from ctrlab.ui.feedback import escape, sentence

_UPLOAD, _NAME, _FAULT = "plan-upload", "plan-name", "plan-fault"


def saved_plans(model_id: str, model_name: str, plan: RankPlan, apply: Callable[[Mapping[str, int]], None]) -> None:
    """A popover to save, apply, delete, download and upload plans.

    Args:
        plan: the current plan.
        apply: called with the ranks of the chosen plan; layers without a rank are dense.
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
                st.button("Apply", key=f"apply-{saved.id}", on_click=apply, args=(ranks,))
                st.button(
                    f"Delete {saved.name}", key=f"delete-{saved.id}", icon=":material/delete:", type="tertiary",
                    on_click=service.delete_plan, args=(cache.workspace(), saved.id),
                )  # fmt: skip
        download_json(plan.to_dict(), model_name, "plan", label="Download JSON", key="plan-json")
        st.file_uploader(
            "Upload JSON", "json", key=_UPLOAD, on_change=_apply_file, args=(model_id, apply),
            help='A plan written by this page or by `ctrlab plan --output`, or ranks as {"mlp.2": 64, "embedding.ad": 4}.',
        )  # fmt: skip
        if fault := st.session_state.pop(_FAULT, None):
            st.error(sentence(fault), icon=":material/error:")


def _save(model_id: str, plan: RankPlan) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.text_input("Name of the plan", key=_NAME, max_chars=60, placeholder="third of the size", width="stretch")
        st.button(
            "Save", icon=":material/save:", key="save-plan", disabled=not len(plan), on_click=_save_plan, args=(model_id, plan)
        )


def _save_plan(model_id: str, plan: RankPlan) -> None:
    """Save the plan. A callback cannot draw, so an error is kept for the next run."""
    name = st.session_state[_NAME].strip()
    try:
        service.save_plan(cache.workspace(), model_id, name or f"plan of {len(plan)} layers", plan)
        st.session_state[_NAME] = ""
    except CtrlabError as error:
        st.session_state[_FAULT] = str(error)


def _apply_file(model_id: str, apply: Callable[[Mapping[str, int]], None]) -> None:
    """Apply the plan of the uploaded file. A callback cannot draw, so an error is kept for the next run."""
    file = st.session_state.get(_UPLOAD)
    if file is None:
        return
    try:
        apply(service.plan_from_json(cache.workspace(), model_id, file.getvalue().decode("utf-8", errors="replace")).as_dict())
    except CtrlabError as error:
        st.session_state[_FAULT] = str(error)
