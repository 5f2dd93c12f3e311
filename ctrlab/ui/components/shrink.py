"""Making a model smaller in one job: the goal, the button, the progress, and the verdict at its end."""

from collections.abc import Callable
from functools import partial

import streamlit as st

from ctrlab.services import shrink
from ctrlab.services.outside import abilities
from ctrlab.storage import Artifact, Job
from ctrlab.ui import cache, format, state
from ctrlab.ui.components.job_progress import job_of_page, job_progress, watch
from ctrlab.ui.feedback import escape, guarded, sentence
from ctrlab.ui.navigation import PAGES

#: {goal: (label, unit of its number, start, least, most, step, number format)}.
_GOALS = {
    "times": ("Times smaller", "x smaller", 5.0, 1.1, 1000.0, 1.0, "%.1f"),
    "auc_loss": ("AUC lost at most", "AUC lost at most", 0.0005, 0.0, 0.1, 0.0005, "%.4f"),
    "megabytes": ("Megabytes", "MB", 1.0, 0.001, 1e6, 0.5, "%.3f"),
    "faster": ("Times faster", "x faster", 2.0, 1.1, 100.0, 0.5, "%.1f"),
}


def make_smaller(model: Artifact, *, key: str) -> None:
    """A popover with the goal and the button; below it what is possible. Nothing where ctrlab cannot fine-tune the model."""
    workspace = cache.workspace()
    if not abilities(workspace, model).allows("finetune"):
        return
    popover = st.popover("Make it smaller", icon=":material/compress:", key=f"shrink-{key}", on_change="rerun")
    if not popover.open:
        return
    with popover:
        st.caption(
            f"One job for {escape(model.name)}: spectra, ranks and bits, recovery, fine-tuning, controls, report and bundle. "
            "It ends in the verdict."
        )
        goal = st.segmented_control(
            "Goal", list(_GOALS), default="times", required=True, format_func=lambda name: _GOALS[name][0], key=f"goal-{key}"
        ) or "times"  # fmt: skip
        _, unit, start, least, most, step, form = _GOALS[goal]
        number = st.number_input(unit, least, most, start, step, format=form, key=f"goal-{goal}-{key}")
        controls = st.checkbox(
            "With controls", True, key=f"shrink-controls-{key}",
            help="Also the original with the same fine-tuning, truncation alone, and a model of that size from scratch: they "
            "show what the compression itself does, and take most of the time.",
        )  # fmt: skip
        config = shrink.ShrinkConfig.from_dict({"model_id": model.id, "controls": controls, goal: number})
        st.button(
            _label(goal, number), type="primary", key=f"run-shrink-{key}", width="stretch", on_click=_queue,
            args=(key, partial(shrink.submit_shrink, workspace, config)),
        )  # fmt: skip
        _possible(model, key)


def shrink_progress(model_id: str) -> None:
    """The job that the button queued, or its verdict with the way to the comparison."""
    job = job_of_page(("shrink", "analysis"), lambda job: job.config.get("model_id") == model_id)
    if job is None:
        return
    job = job_progress(job.id, quiet_success=True)
    if job.state == "succeeded" and job.kind == "shrink":
        _verdict(job)


def _verdict(job: Job) -> None:
    st.success(escape(sentence(job.result["verdict"])), icon=":material/check_circle:")
    models = ",".join([job.config["model_id"], job.result["model"], *job.result["controls"]])
    st.page_link(
        PAGES["Compare"].path, label="See the verdict", icon=":material/arrow_forward:",
        query_params=state.current().params(job=None) | {"models": models, "chosen": job.result["model"]},
    )  # fmt: skip


def _possible(model: Artifact, key: str) -> None:
    """What an analysis found, or the button that starts one."""
    st.divider()
    found = shrink.latest_analysis(cache.workspace(), model.id)
    if found is None:
        st.caption("How small does it get at no loss, and at two small ones? An analysis measures it before you choose.")
        config = shrink.AnalysisConfig(model_id=model.id)
        st.button(
            "Analyse", key=f"analyse-{key}", on_click=_queue,
            args=(key, partial(shrink.submit_analysis, cache.workspace(), config)),
        )  # fmt: skip
        return
    for option in found.options:
        loss = "no loss of AUC" if option.max_auc_loss == 0 else f"at most {option.max_auc_loss:g} of AUC lost"
        st.markdown(f"**{format.times(option.times)} smaller** with {loss}: {format.size(option.bytes)}")
    blockers = ", ".join(f"`{blocker.layer_name}`" for blocker in found.blockers)
    then = f" What keeps the last one from being smaller: {blockers}." if blockers else ""
    st.caption(f"Before recovery and fine-tuning, on {found.num_rows:,} validation rows.{then}")


def _queue(key: str, submit: Callable[[], str]) -> None:
    """Queue the job and close the popover, which would cover its progress."""
    with guarded() as outcome:
        watch(submit())
    if not outcome.failed:
        st.session_state[f"shrink-{key}"] = False


def _label(goal: str, number: float) -> str:
    texts = {
        "times": f"Make it {number:g}x smaller", "auc_loss": f"Make it as small as {number:g} of AUC allows",
        "megabytes": f"Make it {number:g} MB", "faster": f"Make it {number:g}x faster",
    }  # fmt: skip
    return texts[goal]
