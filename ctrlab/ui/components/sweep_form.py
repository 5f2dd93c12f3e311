"""The form of a sweep: methods, sizes or saved plans, seeds; the runs that it would queue; and the button that queues them."""

import streamlit as st

from ctrlab.errors import CtrlabError
from ctrlab.plans.configs import RankPlan
from ctrlab.plans.methods import METHODS
from ctrlab.services import jobs, plans, sweeps
from ctrlab.services.sweeps import Sweep, SweepConfig
from ctrlab.storage import Artifact
from ctrlab.training.configs import FINETUNE
from ctrlab.ui import cache, format, live
from ctrlab.ui.feedback import escape, guarded, sentence

_LISTED = 40


def sweep_form(model: Artifact) -> None:
    """The form for one model; drawn in a popover, so that nothing is planned before it is opened."""
    popover = st.popover("Queue a sweep", icon=":material/grid_view:", key="sweep", on_change="rerun")
    if not popover.open:
        return
    with popover, guarded():
        st.caption(f"Of {escape(model.name)}: every combination is one run of a group.")
        config, chosen = _settings(model)
        if config is None:
            return
        sweep = sweeps.plan_sweep(cache.workspace(), config, chosen)
        _preview(sweep)
        label = f"Queue {format.plural(len(sweep.runs), 'run')}"
        if st.button(label, type="primary", key="queue-sweep", icon=":material/playlist_add:", disabled=not sweep.runs):
            group = sweeps.submit_sweep(cache.workspace(), sweep)
            jobs.ensure_worker(cache.workspace())
            for job_id in group.job_ids:
                live.follow(job_id)
            st.rerun()


def _settings(model: Artifact) -> tuple[SweepConfig | None, dict[str, RankPlan] | None]:
    """The settings of the form, None after showing their faults; and the chosen plans."""
    name = st.text_input("Name of the group", f"Sweep of {model.name}", key="sweep-name", max_chars=200)
    methods = st.multiselect(
        "Methods", METHODS.names(), ["afm"], key="sweep-methods", format_func=lambda name: METHODS[name].title
    )
    saved = {plan.id: plan for plan in plans.list_plans(cache.workspace(), model.id)}
    by_plan = bool(saved) and st.segmented_control(
        "Sizes", ["Times smaller", "Saved plans"], default="Times smaller", required=True, key="sweep-sizes"
    ) == "Saved plans"  # fmt: skip
    chosen: dict[str, RankPlan] | None = None
    times = "3"
    if by_plan:
        ids = st.multiselect("Plans", list(saved), list(saved)[:12], key="sweep-plans", format_func=lambda id: saved[id].name)
        chosen = {saved[plan_id].name: RankPlan.from_dict(saved[plan_id].config) for plan_id in ids}
    else:
        times = st.text_input("Times smaller", "3, 5, 10", key="sweep-times", help="Fewer bytes when served; one plan each.")
    left, right = st.columns(2, vertical_alignment="bottom")
    seeds = left.number_input("Seeds", 1, 20, 1, key="sweep-seeds")
    tuned = right.toggle("Fine-tune", True, key="sweep-finetune", help="One epoch after each stage.")
    try:
        numbers = tuple(float(word) for word in times.replace(";", ",").replace(" ", ",").split(",") if word)
    except ValueError:
        st.error(f"Times smaller must be numbers separated by commas, such as 3, 5, 10; got {escape(times)}.")
        return None, None
    try:
        config = SweepConfig(
            model_id=model.id, methods=tuple(methods), times=numbers, seeds=seeds, finetune=FINETUNE if tuned else None, name=name
        )
    except CtrlabError as error:
        st.error(sentence(str(error)))
        return None, None
    return config, chosen


def _preview(sweep: Sweep) -> None:
    """The runs by name, and what is left out and why."""
    for refused in sweep.refused:
        st.warning(sentence(f"left out: {refused}"), icon=":material/block:")
    with st.expander(format.plural(len(sweep.runs), "run")):
        more = [f"and {len(sweep.runs) - _LISTED} more"] if len(sweep.runs) > _LISTED else []
        st.markdown("\n".join(f"- {escape(line)}" for line in [*(run.name for run in sweep.runs[:_LISTED]), *more]))
