"""The `shrink` job, from a model to a measured smaller one, and the `analysis` job."""

from collections.abc import Callable
from typing import Any

from ctrlab.errors import ServingError
from ctrlab.measuring.analyse import analyse
from ctrlab.measuring.choose import MeasuredFront, candidate_specs, choose_spec
from ctrlab.measuring.probe import MAX_ROWS, Probe
from ctrlab.plans.budgets import Budget
from ctrlab.plans.configs import CompressConfig, CompressionSpec, PlanSettings
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.reports.verdict import verdict
from ctrlab.services.bundles import BundleConfig, latest_bundle
from ctrlab.services.compared import compared_models
from ctrlab.services.compression import CompressJobConfig
from ctrlab.services.controls import compression_arms, kind_of_arm
from ctrlab.services.handlers import JOB_HANDLERS, JobContext
from ctrlab.services.plans import load_plan
from ctrlab.services.reporting import report_text
from ctrlab.services.sensitivity import SensitivityConfig, latest_sensitivity, load_model_sensitivity
from ctrlab.services.shrink import REPORT_FILE, AnalysisConfig, ShrinkConfig
from ctrlab.services.spectra import SpectraConfig, has_loss_estimates, latest_spectra
from ctrlab.services.speed import DEFAULT_BATCH_SIZE, PlanSpeedConfig, SpeedConfig, latest_speed
from ctrlab.services.work.choose import sensitivity_for
from ctrlab.services.work.parts import Parts
from ctrlab.services.work.shared import open_model, open_spectra, stage_folder
from ctrlab.services.work.spectra import decompose_and_file
from ctrlab.services.workspace import Workspace
from ctrlab.storage import NewArtifact
from ctrlab.training.configs import FINETUNE

#: How plans are made; what is measured decides between precisions.
SETTINGS = PlanSettings(method="weighted_afm", bits="planned")
#: {part: its share of the progress bar}; controls are trainings, so they take most.
_SHARES = {"spectra": 15.0, "sensitivity": 15.0, "speed": 15.0, "plan": 15.0, "compression": 25.0, "verdict": 1.0, "report": 1.0,
           "bundle": 4.0}  # fmt: skip
_CONTROL_SHARE = 25.0


def run(config: ShrinkConfig, context: JobContext) -> dict[str, Any]:
    """-> the id of the compressed `model`, the ids of its `controls`, and the `verdict`."""
    names = [f"control {number}" for number in range(1, 4)] if config.controls else []
    wanted = ("sensitivity", "speed") if config.faster is not None else ()
    skipped = {"sensitivity", "speed"} - set(wanted) | (set() if config.bundle else {"bundle"})
    shares = {name: share for name, share in _SHARES.items() if name not in skipped}
    parts = Parts(context, shares | dict.fromkeys(names, _CONTROL_SHARE / 3))
    spectra_id = parts.do("spectra", lambda part: {"spectra": spectra_with_gradients(part, config.model_id)})["spectra"]
    spec = _planned_for_speed(config, parts, spectra_id, context.workspace) if config.faster is not None else (
        CompressionSpec.from_dict(parts.do("plan", lambda part: {"spec": _planned(config, part, spectra_id)})["spec"])
    )  # fmt: skip
    compress = CompressConfig(**{**_settings(spec), "recovery": "best", "finetune": FINETUNE if config.finetune else None})
    job = CompressJobConfig(model_id=config.model_id, spectra_id=spectra_id, compress=compress, name=config.name)
    compressed = parts.do_job("compression", "compress", job)["model"]
    controls = []
    for name, arm in zip(names, compression_arms(context.workspace, job, 1)[1:], strict=False):
        controls.append(parts.do_job(name, kind_of_arm(arm), arm)["model"])
    said = parts.do("verdict", lambda part: {"said": _verdict(part.workspace, config.model_id, compressed, controls)})["said"]
    context.log(said)
    arms = [config.model_id, compressed, *controls]
    report = parts.do("report", lambda part: {"report": _report(part, arms, compressed)})["report"]
    made = {"bundle": parts.do("bundle", lambda part: _bundle(part, compressed))["bundle"]} if config.bundle else {}
    return {"model": compressed, "controls": controls, "spectra": spectra_id, "verdict": said, "report": report, **made}


def run_analysis(config: AnalysisConfig, context: JobContext) -> dict[str, Any]:
    """-> the `analysis` as JSON."""
    parts = Parts(context, {"spectra": 1.0, "analysis": 2.0})
    spectra_id = parts.do("spectra", lambda part: {"spectra": spectra_with_gradients(part, config.model_id)})["spectra"]

    def analysed(part: JobContext) -> dict[str, Any]:
        probe = _probe(part, config.model_id, spectra_id, config.max_rows)
        sensitivity = _sensitivity(part.workspace, config.model_id, probe)
        found = analyse(probe, sensitivity, SETTINGS, on_progress=part.report, should_stop=part.should_stop)
        return {"analysis": found.to_dict()}

    return {"spectra": spectra_id, **parts.do("analysis", analysed)}


def spectra_with_gradients(context: JobContext, model_id: str) -> str:
    """The id of the model's newest spectra, collected now where they lack gradients of the loss."""
    known = latest_spectra(context.workspace, model_id)
    if known is not None and has_loss_estimates(context.workspace, known.id):
        return known.id
    return decompose_and_file(SpectraConfig(model_id=model_id), context).id


def _probe(context: JobContext, model_id: str, spectra_id: str, max_rows: int | None = None) -> Probe:
    _, model, dataset = open_model(context.workspace, model_id)
    return Probe(model, open_spectra(context.workspace, spectra_id), dataset.split("valid"), max_rows=max_rows or MAX_ROWS)


def _sensitivity(workspace: Workspace, model_id: str, probe: Probe) -> Any:
    found = latest_sensitivity(workspace, model_id)
    return sensitivity_for(probe, SETTINGS, load_model_sensitivity(workspace, found.id) if found else None)


def _planned(config: ShrinkConfig, context: JobContext, spectra_id: str) -> dict[str, Any]:
    """The chosen spec for a size or a loss of AUC, as JSON."""
    probe = _probe(context, config.model_id, spectra_id)
    sensitivity = _sensitivity(context.workspace, config.model_id, probe)
    if config.auc_loss is not None:
        context.report(0.1, f"the smallest model that loses at most {config.auc_loss:g} of AUC")
        front = MeasuredFront(probe, sensitivity, probe.spectra, SETTINGS, should_stop=context.should_stop)
        return front.smallest(config.auc_loss).spec.to_dict()
    limit = (config.megabytes or 0) * 1e6 or serving_cost(probe.profile, {}).size_bytes / (config.times or 1)
    specs = candidate_specs(probe.profile, sensitivity, Budget(kind="bytes", limit=limit), probe.spectra, SETTINGS)
    context.report(0.1, f"measuring {len(specs)} candidates")
    return choose_spec(probe, specs, should_stop=context.should_stop).spec.to_dict()


def _planned_for_speed(config: ShrinkConfig, parts: Parts, spectra_id: str, workspace: Workspace) -> CompressionSpec:
    """Ranks that were timed to run so many times faster."""
    model_id = config.model_id
    known = latest_sensitivity(workspace, model_id)
    sensitivity = known.id if known else (
        parts.do_job("sensitivity", "sensitivity", SensitivityConfig(model_id=model_id, spectra_id=spectra_id))["sensitivity"]
    )  # fmt: skip
    timed = latest_speed(workspace, model_id, DEFAULT_BATCH_SIZE)
    speed = timed.id if timed else (
        parts.do_job("speed", "speed", SpeedConfig(model_id=model_id, spectra_id=spectra_id))["speed"]
    )  # fmt: skip
    limit = float(workspace.store.artifacts.get(speed).summary["original_ms"]) / (config.faster or 1)
    wanted = PlanSpeedConfig(model_id=model_id, spectra_id=spectra_id, sensitivity_id=sensitivity, speed_id=speed, limit_ms=limit)
    plan = load_plan(workspace, parts.do_job("plan", "plan_speed", wanted)["plan"])
    return CompressionSpec(plan=plan)


def _settings(spec: CompressionSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in ("plan", "method", "bottleneck", "basis", "precision", "layer_precisions")}


def _report(context: JobContext, arms: list[str], compressed: str) -> str:
    """The comparison of all arms as one HTML file, filed under the compressed model."""
    folder = stage_folder(context, "file")
    name = context.workspace.store.artifacts.get(compressed).name
    text = report_text(context.workspace, arms, baseline=arms[0], chosen=compressed, title=f"{name} and its controls")
    (folder / REPORT_FILE).write_text(text)
    return context.add_artifact(NewArtifact("report", f"Report on {name}", parents=[compressed], files_from=folder)).id


def _bundle(context: JobContext, compressed: str) -> dict[str, Any]:
    """The bundle in integers, or in float where integers were refused."""
    for form in ("integers", "float"):
        config = BundleConfig(model_id=compressed, form=form)
        known = latest_bundle(context.workspace, compressed, config)
        if known is not None:
            return {"bundle": known.id}
        try:
            run_bundle: Callable[..., dict[str, Any]] = JOB_HANDLERS["bundle"].builder()
            return run_bundle(config, context)
        except ServingError as error:
            if form == "float":
                raise
            context.log(str(error))
    raise AssertionError("one of the forms was returned")


def _verdict(workspace: Workspace, original_id: str, compressed_id: str, controls: list[str]) -> str:
    table = compared_models(workspace, [original_id, compressed_id, *controls])
    return verdict(table.iloc[0], table.iloc[1], table.to_dict("records"))
