"""Planning for a latency: the button that measures a model's speed, and the plan that was found and timed."""

from collections.abc import Callable, Mapping

import streamlit as st

from ctrlab.plans.budgets import Budget
from ctrlab.plans.planner import plan_for_budget
from ctrlab.plans.rank_problem import PlanOptions
from ctrlab.services import plans
from ctrlab.services import speed as service
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, Job
from ctrlab.ui import cache, format
from ctrlab.ui.components.task import task
from ctrlab.ui.feedback import escape
from ctrlab.ui.views.compress.context import CompressContext

Apply = Callable[[Mapping[str, int]], None]
_LIMIT = "planner-latency_ms"
_START_SHARE = 0.6


def plan_for_milliseconds(context: CompressContext, sensitivity_id: str, apply: Apply) -> None:
    """The button that measures speed where that is missing; else the limit and the job that finds and times a plan."""
    found = service.latest_speed(context.workspace, context.model.id)
    if found is None:
        _measure(context)
        return
    batch, original = found.summary["batch_size"], found.summary["original_ms"]
    st.number_input("Milliseconds", 1e-6, None, _start(original), format="%.4g", key=_LIMIT, width=150)
    task(
        "plan_speed",
        "Find ranks",
        lambda: _submit(context, sensitivity_id, found),
        belongs=lambda job: job.config.get("model_id") == context.model.id,
        done=lambda job: _done(context.workspace, job, apply),
    )
    where = f"{escape(found.summary['machine'])}, {format.plural(found.summary['threads'], 'thread')}"
    st.caption(
        f"Latency of one batch of {batch:,} rows in PyTorch, float32, on {where}; the original takes {milliseconds(original)}."
    )


def _measure(context: CompressContext) -> None:
    config = service.SpeedConfig(model_id=context.model.id, spectra_id=context.spectra_id)
    with st.container(border=True, key="measure-speed"):
        st.markdown(
            "**Latency depends on this machine, so it is measured.** Models of a few dozen plans are timed at batch "
            f"{config.batch_size:,}; the milliseconds of any other plan are predicted from these timings."
        )
        task(
            "speed",
            "Measure speed",
            lambda: service.submit_speed(context.workspace, config),
            belongs=lambda job: job.config.get("model_id") == context.model.id,
        )


def _submit(context: CompressContext, sensitivity_id: str, found: Artifact) -> str:
    """Queue the job. A limit below every prediction is refused at once, with the nearest that can be met."""
    limit, multiple_of = float(st.session_state[_LIMIT]), 8 if st.session_state.get("planner-eights") else 1
    speed = service.load_model_speed(context.workspace, found.id)
    budget = Budget(kind="latency_ms", limit=limit, batch_size=speed.batch_size)
    options = PlanOptions(spectra=context.spectra, multiple_of=multiple_of, speed=speed)
    plan_for_budget(context.profile, cache.sensitivity(context.workspace, sensitivity_id), budget, options)
    config = service.PlanSpeedConfig(
        model_id=context.model.id, spectra_id=context.spectra_id, sensitivity_id=sensitivity_id, speed_id=found.id,
        limit_ms=limit, multiple_of=multiple_of,
    )  # fmt: skip
    return service.submit_plan_speed(context.workspace, config)


def _done(workspace: Workspace, job: Job, apply: Apply) -> None:
    """Predicted and measured latency, and the button that applies the plan."""
    artifact = workspace.store.artifacts.get(job.result["plan"])
    tried = artifact.summary["tried"]
    last = tried[-1]
    st.markdown(
        f"**{milliseconds(last['measured_ms'])} measured**, {milliseconds(last['predicted_ms'])} predicted, "
        f"{milliseconds(artifact.summary['limit_ms'])} allowed; predicted AUC {last['predicted_auc']:.4f}."
    )
    if len(tried) > 1:
        earlier = " and ".join(milliseconds(one["measured_ms"]) for one in tried[:-1])
        st.caption(f"{len(tried)} attempts; the earlier ones took {earlier}.")
    ranks = plans.load_plan(workspace, artifact.id).as_dict()
    st.button("Apply plan", key=f"apply-timed-{artifact.id}", on_click=apply, args=(ranks,))


def milliseconds(value: float) -> str:
    """Three digits with the unit."""
    return f"{value:.3g} ms"


def _start(original: float) -> float:
    return float(f"{_START_SHARE * original:.2g}")
