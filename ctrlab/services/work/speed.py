"""The `speed` and `plan_speed` jobs."""

import platform
from pathlib import Path

from ctrlab.measuring.latency_search import Attempt, plan_that_runs
from ctrlab.measuring.speed_probe import measure_plan_ms, measure_speed
from ctrlab.models.profiling import profile_model
from ctrlab.plans.budgets import Budget
from ctrlab.plans.configs import RankPlan
from ctrlab.plans.planner import plan_for_budget
from ctrlab.plans.rank_problem import PlannedRanks, PlanOptions
from ctrlab.plans.speed import save_speed
from ctrlab.services.handlers import JobContext
from ctrlab.services.plans import list_plans
from ctrlab.services.sensitivity import load_model_sensitivity
from ctrlab.services.speed import PlanSpeedConfig, SpeedConfig, load_model_speed
from ctrlab.services.work.shared import open_model, open_spectra, stage_folder
from ctrlab.storage import NewArtifact


def run(config: SpeedConfig, context: JobContext) -> dict[str, str]:
    """Time uniform plans."""
    artifact, model, dataset = open_model(context.workspace, config.model_id)
    spectra = open_spectra(context.workspace, config.spectra_id)
    context.report(0.0, "timing the original")
    speed = measure_speed(
        model.eval(), spectra, dataset.split("valid"), config.batch_size, threads=config.threads,
        seconds=config.seconds_per_timing, machine=processor(), on_progress=context.report, should_stop=context.should_stop,
    )  # fmt: skip
    folder = stage_folder(context, f"speed-{config.model_id}")
    save_speed(folder, speed)
    facts = {key: getattr(speed, key) for key in ("batch_size", "threads", "machine", "original_ms")}
    filed = context.add_artifact(NewArtifact(
        "speed", f"Speed of {artifact.name} at batch {config.batch_size}", parents=[artifact.id, config.spectra_id],
        config=config.to_dict(), files_from=folder, summary=facts,
    ))  # fmt: skip
    return {"speed": filed.id}


def run_plan(config: PlanSpeedConfig, context: JobContext) -> dict[str, str]:
    """Plan, measure, and plan again if the plan is too slow."""
    _, model, dataset = open_model(context.workspace, config.model_id)
    spectra = open_spectra(context.workspace, config.spectra_id)
    sensitivity = load_model_sensitivity(context.workspace, config.sensitivity_id)
    speed = load_model_speed(context.workspace, config.speed_id)
    profile, rows = profile_model(model), dataset.split("valid")
    options = PlanOptions(spectra=spectra, multiple_of=config.multiple_of, speed=speed)

    def planned_for(budget: Budget) -> PlannedRanks:
        return plan_for_budget(profile, sensitivity, budget, options)

    tried = plan_that_runs(
        Budget(kind="latency_ms", limit=config.limit_ms, batch_size=speed.batch_size),
        planned_for,
        lambda ranks: measure_plan_ms(model.eval(), spectra, rows, ranks, speed.batch_size, threads=speed.threads),
        should_stop=context.should_stop,
    )
    plan = RankPlan.of(tried[-1].planned.plan.as_dict())
    filed = context.add_artifact(NewArtifact(
        "plan", f"At most {config.limit_ms:g} ms at batch {speed.batch_size}", parents=[config.model_id, config.speed_id],
        config=plan.to_dict(),
        summary={"limit_ms": config.limit_ms, "batch_size": speed.batch_size, "tried": [_facts(attempt) for attempt in tried]},
    ))  # fmt: skip
    for old in list_plans(context.workspace, config.model_id):
        if old.name == filed.name and old.id != filed.id:
            context.workspace.store.artifacts.delete(old.id)
    return {"plan": filed.id}


def _facts(attempt: Attempt) -> dict[str, float | None]:
    planned = attempt.planned
    return {
        "predicted_ms": planned.latency_ms, "measured_ms": attempt.measured_ms, "predicted_auc": planned.auc,
        "predicted_log_loss": planned.log_loss,
    }  # fmt: skip


def processor() -> str:
    """The processor's name; "this machine" where the system does not report it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return named or "this machine"
