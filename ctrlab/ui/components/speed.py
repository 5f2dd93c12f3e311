"""A plan for milliseconds: measuring a model's speed from a page, and the plan that was found and run."""

from collections.abc import Callable, Mapping

import streamlit as st

from ctrlab.plans.planner import Budget, plan_for_budget
from ctrlab.services import plans
from ctrlab.services import speed as service
from ctrlab.storage import Artifact, Job
from ctrlab.ui import cache, format
from ctrlab.ui.components.bench import Bench
from ctrlab.ui.components.task import task
from ctrlab.ui.feedback import escape

Take = Callable[[Mapping[str, int]], None]
_LIMIT = "planner-latency_ms"
_START_SHARE = 0.6


def plan_for_milliseconds(bench: Bench, sensitivity_id: str, take: Take) -> None:
    """What is missing first: the speed, measured by a job; then the limit, and a job that finds a plan and runs it."""
    found = service.latest_speed(cache.workspace(), bench.model.id)
    if found is None:
        _measure(bench)
        return
    batch, original = found.summary["batch_size"], found.summary["original_ms"]
    st.number_input("Milliseconds", 1e-6, None, _start(original), format="%.4g", key=_LIMIT, width=150)
    task(
        "plan_speed",
        "Find ranks and run them",
        lambda: _submit(bench, sensitivity_id, found),
        belongs=lambda job: job.config.get("model_id") == bench.model.id,
        done=lambda job: _done(job, take),
    )
    where = f"{escape(found.summary['machine'])}, {format.plural(found.summary['threads'], 'thread')}"
    st.caption(
        f"Of one call of {batch:,} rows in PyTorch, float32, timed on {where}; the original takes {milliseconds(original)}."
    )


def _measure(bench: Bench) -> None:
    config = service.SpeedConfig(model_id=bench.model.id, spectra_id=bench.spectra_id)
    with st.container(border=True, key="measure-speed"):
        st.markdown(
            "**How fast is a plan?** That is this machine's to say: models of a few dozen plans are timed, at batch "
            f"{config.batch_size:,}, and the milliseconds of any plan are put together from theirs."
        )
        task(
            "speed",
            "Measure speed",
            lambda: service.submit_speed(cache.workspace(), config),
            belongs=lambda job: job.config.get("model_id") == bench.model.id,
        )


def _submit(bench: Bench, sensitivity_id: str, found: Artifact) -> str:
    """What is typed is read now. A limit that no plan is predicted to meet is refused at once, with the nearest."""
    limit, multiple_of = float(st.session_state[_LIMIT]), 8 if st.session_state.get("planner-eights") else 1
    speed = service.load_model_speed(cache.workspace(), found.id)
    budget = Budget(kind="latency_ms", limit=limit, batch_size=speed.batch_size)
    plan_for_budget(
        bench.profile, cache.sensitivity(sensitivity_id), budget, spectra=bench.spectra, multiple_of=multiple_of, speed=speed
    )
    config = service.PlanSpeedConfig(
        model_id=bench.model.id, spectra_id=bench.spectra_id, sensitivity_id=sensitivity_id, speed_id=found.id, limit_ms=limit,
        multiple_of=multiple_of,
    )  # fmt: skip
    return service.submit_plan_speed(cache.workspace(), config)


def _done(job: Job, take: Take) -> None:
    """Predicted and measured side by side; the plan goes to the sliders when asked."""
    artifact = cache.workspace().store.artifacts.get(job.result["plan"])
    tried = artifact.summary["tried"]
    last = tried[-1]
    st.markdown(
        f"**{milliseconds(last['measured_ms'])} measured**, {milliseconds(last['predicted_ms'])} predicted, "
        f"{milliseconds(artifact.summary['limit_ms'])} allowed; predicted AUC {last['predicted_auc']:.4f}."
    )
    if len(tried) > 1:
        late = ", ".join(milliseconds(one["measured_ms"]) for one in tried[:-1])
        st.caption(f"Planned {len(tried)} times: before it ran in time, {late} were measured.")
    ranks = plans.load_plan(cache.workspace(), artifact.id).as_dict()
    st.button("Take this plan", key=f"take-timed-{artifact.id}", on_click=take, args=(ranks,))


def milliseconds(value: float) -> str:
    """Three digits with the unit."""
    return f"{value:.3g} ms"


def _start(original: float) -> float:
    return float(f"{_START_SHARE * original:.2g}")
