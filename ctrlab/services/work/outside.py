"""Outside models in jobs and in the preview process: made by their factory, with the weights that were stored."""

import math
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from ctrlab.anymodule.outside import OutsideModel, are_probabilities, logits_of, rows_in, scores
from ctrlab.anymodule.profiling import profile_module, with_fixed_part
from ctrlab.anymodule.spectra import collect
from ctrlab.compression.result import CompressionResult
from ctrlab.decomposition.spectrum import LayerSpectrum, save_spectra
from ctrlab.errors import CompressionError, ConfigError, CtrlabError, JobCancelled
from ctrlab.evaluation.delong import auc_difference, auc_interval
from ctrlab.evaluation.metrics import metrics_of
from ctrlab.evaluation.prediction import never
from ctrlab.measuring.probe import Measurement
from ctrlab.models.profile import ModelProfile
from ctrlab.plans.configs import CompressionSpec
from ctrlab.plans.cost_prediction import serving_cost
from ctrlab.plans.ranks import effective_ranks, validate_plan
from ctrlab.services.annotations import free_name
from ctrlab.services.capabilities import SOURCE
from ctrlab.services.comparison import LOGITS_FILE
from ctrlab.services.compression import CompressJobConfig, compressed_name
from ctrlab.services.factories import Factory, allow, check_allowed
from ctrlab.services.handlers import JobContext
from ctrlab.services.models import MODEL_FILE, model_file, model_profile, original_of
from ctrlab.services.of_model import newest_of_model
from ctrlab.services.outside import facts_of, held, hold
from ctrlab.services.paths import uploads_folder
from ctrlab.services.spectra import SpectraConfig
from ctrlab.services.work.shared import open_spectra, stage_folder
from ctrlab.services.workspace import Workspace
from ctrlab.storage import Artifact, NewArtifact

#: The rows of an outside model, in place of a split's name.
REGISTERED = "registered"
#: Modules made by factories that stay in memory: a job opens its model several times.
_KEPT = 2
_made: OrderedDict[tuple[Path, str], OutsideModel] = OrderedDict()


def as_outside(made: Any, address: str) -> OutsideModel:
    """What a factory returned: an OutsideModel, (module, batches) or (module, batches, labels).

    Raises:
        ConfigError: it returned something else.
    """
    if isinstance(made, OutsideModel):
        return made
    if not isinstance(made, tuple) or len(made) not in (2, 3) or not isinstance(made[0], nn.Module):
        raise ConfigError(
            f"{address} must return (module, batches), (module, batches, labels) or an OutsideModel; got {type(made).__name__}"
        )
    labels = np.asarray(made[2]) if len(made) == 3 else None
    return OutsideModel(module=made[0], batches=list(made[1]), labels=labels)


def register(
    workspace: Workspace, model: OutsideModel, name: str, factory: Factory | None, on_batch: Callable[[int], None] | None
) -> Artifact:
    """Store a module's layers, sizes, weights and spectra, and its first measurement."""
    spectra = collect(model.module, model.calibration, forward=model.forward, on_batch=on_batch)
    found = profile_module(model.module, model.batches[0], model.forward)
    profile = _only_with_spectra(found.profile, spectra)
    measure = "labels" if model.labels is not None else "evaluate" if model.evaluate is not None else "none"
    facts = {"kind": "factory" if factory else "process", "measure": measure, **(asdict(factory) if factory else {})}
    store, uploads = workspace.store.artifacts, uploads_folder(workspace)
    uploads.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=uploads) as scratch:
        weights, folder = Path(scratch) / "model", Path(scratch) / "spectra"
        weights.mkdir()
        _save(model.module, weights / MODEL_FILE)
        save_spectra(folder, spectra)
        artifact = store.add(NewArtifact(
            "model", free_name(workspace, "model", name), config={SOURCE: facts},
            summary=_summary(profile, "original") | {"other": found.other}, files_from=weights,
        ))  # fmt: skip
        store.add(_new_spectra(artifact, spectra, folder, {"model_id": artifact.id}))
        if measure != "none":
            evaluation = Path(scratch) / "evaluation"
            evaluation.mkdir()
            store.add(_new_evaluation(workspace, artifact, model, model.module, evaluation))
    hold(workspace, artifact.id, model)
    if factory is not None:
        allow(workspace, artifact.id, factory)
    return artifact


def open_outside(workspace: Workspace, artifact: Artifact) -> OutsideModel:
    """The uncompressed outside model of `artifact`, an original or one compressed from it, with its stored weights.

    Raises:
        ConfigError: no process but another holds it, or its factory may not be imported or makes another module.
    """
    original = original_of(workspace, artifact)
    key, facts = (workspace.home, original.id), facts_of(original)
    found = held(workspace, original.id) or _made.get(key)
    if found is not None:
        return found
    if facts["kind"] != "factory":
        raise ConfigError("only the Python process that registered this model holds it; register it with a factory")
    factory = Factory(address=facts["address"], folder=facts["folder"])
    check_allowed(workspace, original.id, factory)
    model = as_outside(factory.make(), factory.address)
    try:
        load_model(model.module, str(model_file(original)))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[-1].strip()
        raise ConfigError(f"{factory.address} makes another module than was registered: {reason}; register it again") from error
    while len(_made) >= _KEPT:
        _made.popitem(last=False)
    _made[key] = model
    return model


def open_module(workspace: Workspace, artifact: Artifact) -> tuple[OutsideModel, nn.Module]:
    """The outside model, and the module of `artifact` itself: compressed where that is."""
    model = open_outside(workspace, artifact)
    return model, model.restored(model_file(artifact)) if artifact.config.get("original_id") else model.module


def decompose(config: SpectraConfig, context: JobContext, artifact: Artifact) -> Artifact:
    """The spectra of an outside model's outputs over its own batches."""
    if config.max_rows is not None or config.tolerance is not None:
        raise CtrlabError("the spectra of a model from outside are made from its own batches; leave the number of rows empty")
    model = open_outside(context.workspace, artifact)
    total = len(model.calibration)

    def on_batch(number: int) -> None:
        context.stop_if_requested()
        context.report(number / total, f"batch {number:,} of {total:,}")

    spectra = collect(model.module, model.calibration, forward=model.forward, on_batch=on_batch)
    folder = context.folder / "spectra"
    save_spectra(folder, spectra)
    return context.add_artifact(_new_spectra(artifact, spectra, folder, config.to_dict()))


def compress_and_file(config: CompressJobConfig, context: JobContext, original: Artifact) -> dict[str, str]:
    """Compress an outside model by AFM, store its weights and measure it."""
    workspace = context.workspace
    model, spectra = open_outside(workspace, original), open_spectra(workspace, config.spectra_id)
    context.report(0.2, "compressing")
    result = _compressed(model, config.compress, spectra, batches=model.calibration[:1])
    folder = stage_folder(context, "model")
    result.save(folder / MODEL_FILE)
    profile = model_profile(workspace, original.id)
    cost = serving_cost(profile, result.plan.as_dict(), config.compress.spec)
    summary = _summary(replace(profile, cost=cost, compressed=True), "compressed") | {
        "compression": {"ranks": result.plan.as_dict(), "stages": [], "layers": [asdict(row) for row in result.rows],
                        "skipped": result.skipped, "difference": result.difference},
    }  # fmt: skip
    made = context.add_artifact(NewArtifact(
        "model", free_name(workspace, "model", config.name or compressed_name(workspace, config)),
        parents=[original.id, config.spectra_id], summary=summary, files_from=folder,
        config={SOURCE: original.config[SOURCE], "original_id": original.id, "spectra_id": config.spectra_id,
                "compression": config.compress.to_dict()},
    ))  # fmt: skip
    if config.measure and facts_of(original)["measure"] != "none":
        context.report(0.7, "measuring")
        evaluate_and_file(context, made)
    return {"model": made.id}


def evaluate_and_file(context: JobContext, artifact: Artifact) -> Artifact:
    """Measure a stored outside model on its labelled rows, or by its own `evaluate`."""
    model, module = open_module(context.workspace, artifact)
    folder = stage_folder(context, f"evaluation-{artifact.id}")
    new = _new_evaluation(context.workspace, artifact, model, module, folder)
    return context.add_artifact(new, key=f"evaluation of {artifact.id}")


class OutsideProbe:
    """Accuracy of plans of an outside model with labels, as `measuring.probe.Probe` has it; every plan is really compressed."""

    split = REGISTERED

    def __init__(self, model: OutsideModel, profile: ModelProfile, spectra: Mapping[str, LayerSpectrum], max_rows: int) -> None:
        """max_rows: the batches that measure are used until they have so many rows."""
        self._model, self.profile = model, profile
        self.spectra: Mapping[str, LayerSpectrum] = spectra
        self._batches, rows = [], 0
        for batch in model.measured:
            if rows < max_rows:
                self._batches.append(batch)
                rows += rows_in(batch)
        self.labels: NDArray[np.float32] = model.measured_labels[:rows].astype(np.float32)
        found = scores(model.module, self._batches, model.forward)
        self._probabilities = are_probabilities(found)
        self.original = Measurement.of(self.labels, logits_of(found, probabilities=self._probabilities))

    @property
    def num_rows(self) -> int:
        return len(self.labels)

    def measure(
        self, spec: CompressionSpec, *, respect_break_even: bool = True, should_stop: Callable[[], bool] = never
    ) -> Measurement:
        """Accuracy of the module that a job with these ranks would make.

        Raises:
            CompressionError: the spec asks for more than AFM in float32, or does not fit the model.
        """
        if spec.quantises or spec.method != "afm" or spec.basis != "per_field":
            raise CompressionError("of a model from outside only AFM with a basis a table, in float32, is measured")
        if should_stop():
            raise JobCancelled("cancelled while measuring a plan")
        validate_plan(self.profile, spec.plan)
        if not effective_ranks(self.profile, spec, respect_break_even=respect_break_even):
            return self.original
        module = _compressed(self._model, spec, self.spectra, batches=None).model
        found = scores(module, self._batches, self._model.forward)
        return Measurement.of(self.labels, logits_of(found, probabilities=self._probabilities))


def own_measures(workspace: Workspace, artifact: Artifact, spectra_id: str, spec: CompressionSpec) -> tuple[float, float]:
    """What an outside model's own `evaluate` gives for a compression and for the model as it is.

    Raises:
        ConfigError: the model cannot be made here, or has no such function.
    """
    model = open_outside(workspace, artifact)
    if model.evaluate is None:
        raise ConfigError(f"{artifact.name} has no function that evaluates; its factory returns none")
    before = newest_of_model(workspace, "evaluation", artifact.id)
    known = before.summary["measure"] if before is not None else None
    original = float(model.evaluate(model.module)) if known is None else float(known)
    if not effective_ranks(model_profile(workspace, artifact.id), spec):
        return original, original
    module = _compressed(model, spec, open_spectra(workspace, spectra_id), batches=None).model
    return float(model.evaluate(module)), original


def _compressed(
    model: OutsideModel, spec: CompressionSpec, spectra: Mapping[str, LayerSpectrum], batches: Any
) -> CompressionResult[nn.Module]:
    return model.compressed(batches=batches, ranks=spec.plan.as_dict(), spectra=spectra, bottleneck=spec.bottleneck)


def _only_with_spectra(profile: ModelProfile, spectra: dict[str, LayerSpectrum]) -> ModelProfile:
    layers = tuple(
        layer if layer.layer_name in spectra or not layer.compressible
        else replace(layer, skip_reason="it did not run on these batches", embedding="")
        for layer in profile.layers
    )  # fmt: skip
    kept = {layer.embedding for layer in layers}
    tables = tuple(embedding for embedding in profile.embeddings if embedding.name in kept)
    return with_fixed_part(replace(profile, layers=layers, embeddings=tables))


def _summary(profile: ModelProfile, role: str) -> dict[str, Any]:
    cost = profile.cost.to_dict()
    return {"role": role, "architecture": profile.architecture, "profile": profile.to_dict(), "cost": cost, "cost_serving": cost}


def _new_spectra(model: Artifact, spectra: dict[str, LayerSpectrum], folder: Path, config: dict[str, Any]) -> NewArtifact:
    rows = min((found.num_samples for found in spectra.values() if found.kind == "linear"), default=0)
    return NewArtifact(
        "spectra", f"Spectra of {model.name}"[:200], parents=[model.id], config=config, files_from=folder,
        summary={"num_layers": len(spectra), "calibration_rows": rows, "split": REGISTERED},
    )  # fmt: skip


def _new_evaluation(
    workspace: Workspace, artifact: Artifact, model: OutsideModel, module: nn.Module, folder: Path
) -> NewArtifact:
    """Metrics on the labelled rows, and the number of the model's own `evaluate`."""
    unknown = ("auc", "log_loss", "calibration_ratio", "calibration_error", "num_rows", "num_clicks")
    summary: dict[str, Any] = {
        "split": REGISTERED, "metrics": dict.fromkeys(unknown), "auc_change": None, "auc_interval": {}, "measure": None,
    }  # fmt: skip
    if model.evaluate is not None:
        value = float(model.evaluate(module))
        summary["measure"] = value if math.isfinite(value) else None
    if model.labels is not None:
        found = scores(module, model.measured, model.forward)
        logits, labels = _logits(model, module, found), model.measured_labels.astype(np.float32)
        summary |= {
            "metrics": metrics_of(labels, logits).to_dict(),
            "auc_interval": auc_interval(labels, logits).to_dict(),
            "auc_change": _change(workspace, artifact, labels, logits),
            "constant_prediction": bool(np.ptp(logits) < 1e-6),
        }
        np.save(folder / LOGITS_FILE, logits)
    return NewArtifact(
        "evaluation", f"Measurement of {artifact.name}"[:200], parents=[artifact.id], summary=summary,
        config={"model_ids": [artifact.id]}, files_from=folder,
    )  # fmt: skip


def _logits(model: OutsideModel, module: nn.Module, found: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores as logits; whether they are probabilities is decided by the uncompressed module's."""
    before = found if module is model.module else scores(model.module, model.measured, model.forward)
    return logits_of(found, probabilities=are_probabilities(before))


def _change(
    workspace: Workspace, artifact: Artifact, labels: NDArray[np.float32], logits: NDArray[np.float32]
) -> dict[str, Any] | None:
    original_id = artifact.config.get("original_id")
    before = newest_of_model(workspace, "evaluation", original_id) if original_id else None
    if before is None or not (before.path / LOGITS_FILE).exists():
        return None
    reference = np.load(before.path / LOGITS_FILE)
    if reference.shape != logits.shape:
        return None
    return {"reference": original_id, "interval": auc_difference(labels, logits, reference).to_dict()}


def _save(module: nn.Module, path: Path) -> None:
    try:
        save_model(module, str(path))
    except (SafetensorError, RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(f"the weights cannot be stored: {error}; safetensors holds tensors alone") from error
