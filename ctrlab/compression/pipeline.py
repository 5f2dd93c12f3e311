"""The paper's procedure in stages: compress, fine-tune, compress the rest, fine-tune; with progress, cancellation and resume."""

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ctrlab.compression.recovery import recover
from ctrlab.compression.result import CompressedLayer, layer_rows, skipped_layers
from ctrlab.compression.surgery import CountsByLayer, compress_model
from ctrlab.data.batches import iterate_batches
from ctrlab.data.schema import fingerprint_of
from ctrlab.decomposition.collect import CalibrationData, collect_spectra, look_up_counts
from ctrlab.decomposition.spectrum import LayerSpectrum
from ctrlab.errors import CompressionError, JobCancelled, StorageError
from ctrlab.evaluation.prediction import evaluate_model, to_tensors
from ctrlab.models.base import CTRModel
from ctrlab.models.checkpoint import load_model, save_model
from ctrlab.models.profile import ModelProfile
from ctrlab.models.profiling import profile_model
from ctrlab.plans.configs import CompressConfig, RankPlan
from ctrlab.plans.methods import METHODS
from ctrlab.plans.ranks import effective_ranks, validate_plan
from ctrlab.plans.stages import stages_of
from ctrlab.training.loop import Dataset, fit
from ctrlab.training.progress import FitProgress

#: Rows that recovery is fitted on at most, and of one of its batches.
RECOVERY_ROWS, _RECOVERY_BATCH = 65_536, 4096
#: Shares of a stage's progress bar; collecting is one forward pass, fine-tuning several and with gradients.
_COLLECTED, _TRUNCATED = 0.2, 0.25

Spectra = Mapping[str, LayerSpectrum]
OnProgress = Callable[[float, str], None]
OnStep = Callable[[str, FitProgress], None]


class CompressionData(Dataset, CalibrationData, Protocol):
    """The dataset interface of the pipeline; `ctrlab.data.dataset.EncodedDataset` implements it."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """The result of one stage.

    ranks: the layers it factored.
    truncated_auc, truncated_log_loss: on the validation rows right after factoring, before fine-tuning; None without such rows.
    valid_auc, valid_log_loss: of the model the stage hands on, the best on the validation rows with step 0 counted.
    best_step, steps: of the fine-tuning; 0 means that fine-tuning found nothing better than truncation.
    history: a row an evaluation, as `FitResult.history`.
    recovery: the fields of a `RecoveryResult`; None where there was no recovery. The truncated model is then the one after it.
    """

    name: str
    ranks: dict[str, int]
    truncated_auc: float | None
    truncated_log_loss: float | None
    valid_auc: float | None
    valid_log_loss: float | None
    best_step: int
    steps: int
    seconds: float
    history: list[dict[str, Any]]
    recovery: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class RecoveryResult:
    """Metrics on the validation rows before and after recovery, None without such rows; kept: whether it was used."""

    before_auc: float | None
    before_log_loss: float | None
    auc: float | None
    log_loss: float | None
    kept: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class PipelineResult:
    """The compressed and fine-tuned model, in its trainable form (see `compression.fold` for serving), and how it came to be.

    truncated_auc, truncated_log_loss: on the validation rows, of the original with the whole plan applied at once and nothing
        fine-tuned; None without such rows, or without fine-tuning.
    kept_truncated: `model` is that one, for the stages came to nothing better.
    """

    model: CTRModel
    plan: RankPlan
    stages: tuple[StageResult, ...]
    rows: tuple[CompressedLayer, ...]
    skipped: dict[str, str]
    truncated_auc: float | None = None
    truncated_log_loss: float | None = None
    kept_truncated: bool = False


def compress_and_finetune(
    model: CTRModel,
    dataset: CompressionData,
    config: CompressConfig,
    spectra: Spectra | None = None,
    *,
    on_progress: OnProgress = lambda fraction, message: None,
    on_step: OnStep = lambda stage, progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint_dir: Path | None = None,
) -> PipelineResult:
    """Run the stages of `config.order`; `model` itself is not changed.

    Fine-tuning can only help: each stage counts its step 0 as a candidate, and the end of the last stage is held against the
    original with the whole plan applied and nothing fine-tuned, on the validation rows, by what `config.finetune` monitors.

    Args:
        spectra: of `model`, with eigenvectors; used as long as the model is still the original. Later stages, and stages for
            which spectra are missing, collect their own from the model as it is by then.
        on_progress: called with the fraction done, 0..1, and what is being done.
        on_step: called with the stage's name and each FitProgress of its fine-tuning.
        checkpoint_dir: folder for finished stages and the checkpoint of the running one; a later call resumes from it.

    Raises:
        CompressionError: the plan does not fit the model, or leaves every layer dense though nothing else is to be reduced.
        StorageError: `checkpoint_dir` belongs to another compression.
        JobCancelled: `should_stop()` was true.
    """
    profile = profile_model(model)
    validate_plan(profile, config.plan)
    ranks = effective_ranks(profile, config)
    if not ranks and not config.quantises:
        raise CompressionError("the plan leaves every layer dense; choose a rank below break-even for at least one layer")
    stages = stages_of(profile, config)
    counts = look_up_counts(model, dataset) if ranks and METHODS[config.method].needs_counts else None
    if checkpoint_dir is not None:
        _claim(checkpoint_dir, _identity(model, config))
    if len(stages) > 1 and config.finetune is not None:
        report = _part(on_progress, 0, len(stages), stages[0][0])
        spectra = _with_all_spectra(model, dataset, config, ranks, spectra or {}, report, should_stop)
    current, results = model, []
    for number, (name, stage_ranks) in enumerate(stages):
        stage = _Stage(
            name, stage_ranks, current, dataset, config, spectra or {} if current is model else {},
            _part(on_progress, number, len(stages), name), on_step, should_stop,
            checkpoint_dir / f"{number + 1}-{name}" if checkpoint_dir is not None else None, model, profile, counts,
        )  # fmt: skip
        current, result = stage.run()
        results.append(result)
    compressed = PipelineResult(
        model=current, plan=RankPlan.of(ranks), stages=tuple(results),
        rows=layer_rows(profile, ranks, config),
        skipped=skipped_layers(profile, config.plan, ranks),
    )  # fmt: skip
    return _better_of(compressed, model, profile, counts, dataset, config, spectra or {}, should_stop)


def _better_of(
    result: PipelineResult, original: CTRModel, profile: ModelProfile, counts: CountsByLayer | None, dataset: CompressionData,
    config: CompressConfig, spectra: Spectra, should_stop: Callable[[], bool],
) -> PipelineResult:  # fmt: skip
    """The result, or the original with the whole plan applied where that is better on the validation rows.

    A single stage counts its own truncation as a candidate. With several, a later one starts from fine-tuned weights, which may
    truncate worse than the original's.
    """
    if not result.stages:  # nothing but the precision changes
        return result
    end = result.stages[-1]
    if config.finetune is None or end.valid_auc is None or end.valid_log_loss is None:
        return result
    if len(result.stages) == 1:
        return replace(result, truncated_auc=end.truncated_auc, truncated_log_loss=end.truncated_log_loss)
    built = compress_model(original, config.replace(plan=result.plan), spectra, profile=profile, counts=counts).model.eval()
    if config.recovery != "off":
        built, _ = recovered(original, built, dataset, config, spectra, should_stop)
    metrics = evaluate_model(built, dataset.split("valid"), should_stop=should_stop)
    by_auc = config.finetune.monitor == "auc"
    better = metrics.auc > end.valid_auc if by_auc else metrics.log_loss < end.valid_log_loss
    return replace(
        result, model=built if better else result.model, truncated_auc=metrics.auc, truncated_log_loss=metrics.log_loss,
        kept_truncated=better,
    )  # fmt: skip


def _with_all_spectra(
    model: CTRModel, dataset: CompressionData, config: CompressConfig, ranks: Mapping[str, int], spectra: Spectra,
    report: OnProgress, should_stop: Callable[[], bool],
) -> Spectra:  # fmt: skip
    """`spectra`, completed by the original's spectra that the plan needs and that are missing."""
    if not METHODS[config.method].needs_spectra:
        return spectra
    missing = [name for name in ranks if not _suffices(spectra.get(name), config)]
    if not missing:
        return spectra
    return {**spectra, **_collect(model, dataset, config, missing, report, should_stop)}


def recovered(
    original: CTRModel, truncated: CTRModel, dataset: CompressionData, config: CompressConfig, spectra: Spectra,
    should_stop: Callable[[], bool],
) -> tuple[CTRModel, RecoveryResult]:  # fmt: skip
    """The truncated model with its layers fitted again; itself where that is not better and `config.recovery` is "best"."""
    train, device = dataset.split("train"), next(original.parameters()).device
    rows = min(len(train), config.max_rows or RECOVERY_ROWS, RECOVERY_ROWS)
    drawn = iterate_batches(train, _RECOVERY_BATCH, shuffle=rows < len(train), max_rows=rows)
    batches = [to_tensors(fields, device) for fields, *_ in drawn]
    weights = spectra if METHODS[config.method].needs_gradients else None
    model = recover(original, truncated, batches, weights, should_stop=should_stop)
    valid = dataset.split("valid") if "valid" in dataset.splits else None
    if valid is None or not len(valid):
        return model, RecoveryResult(before_auc=None, before_log_loss=None, auc=None, log_loss=None, kept=True)
    before, after = (evaluate_model(each, valid, should_stop=should_stop) for each in (truncated, model))
    kept = config.recovery == "on" or after.log_loss < before.log_loss
    result = RecoveryResult(
        before_auc=before.auc, before_log_loss=before.log_loss, auc=after.auc, log_loss=after.log_loss, kept=kept
    )
    return (model if kept else truncated), result


def _suffices(spectrum: LayerSpectrum | None, config: CompressConfig) -> bool:
    """Whether a spectrum holds what the method needs."""
    if spectrum is None or spectrum.eigenvectors is None:
        return False
    return spectrum.gradients is not None or not METHODS[config.method].needs_gradients


def _collect(
    model: CTRModel, dataset: CompressionData, config: CompressConfig, names: Collection[str], report: OnProgress,
    should_stop: Callable[[], bool],
) -> Spectra:  # fmt: skip
    return collect_spectra(
        model, dataset, layer_names=names, max_rows=config.max_rows, should_stop=should_stop,
        loss_gradients=METHODS[config.method].needs_gradients,
        on_progress=lambda fraction, message: report(_COLLECTED * fraction, f"collecting features, {message}"),
    )  # fmt: skip


@dataclass(frozen=True)
class _Stage:
    """One stage: collect spectra, factor layers, fine-tune. Each step is resumable if the stage has a folder."""

    name: str
    ranks: dict[str, int]
    model: CTRModel
    dataset: CompressionData
    config: CompressConfig
    spectra: Spectra
    report: OnProgress
    on_step: OnStep
    should_stop: Callable[[], bool]
    folder: Path | None
    original: CTRModel
    profile: ModelProfile
    counts: CountsByLayer | None
    recovery: list[RecoveryResult] = field(default_factory=list)

    def run(self) -> tuple[CTRModel, StageResult]:
        done = self._finished()
        if done is not None:
            return done
        truncated = self._truncated()
        model, result = self._measure(truncated) if self.config.finetune is None else self._finetune(truncated)
        self._save(model, result)
        self.report(1.0, "done")
        return model, result

    def _truncated(self) -> CTRModel:
        """The model with this stage's layers factored; kept, so that a resumed fine-tuning starts from the very same weights."""
        path = self._path("truncated.safetensors")
        if path is not None and path.exists():
            return load_model(path, self.dataset.schema)
        spectra = self._spectra_of_stage()
        self.report(_COLLECTED, f"factoring {len(self.ranks)} layers")
        self._check_stop()
        spec = self.config.replace(plan=RankPlan.of(self.ranks))
        result = compress_model(self.model, spec, spectra, profile=self.profile, counts=self.counts)
        model = result.model.eval()
        if self.config.recovery != "off":
            self.report(_COLLECTED, "fitting the layers to the original's outputs")
            model, found = recovered(self.original, model, self.dataset, self.config, spectra, self.should_stop)
            if (note := self._path("recovery.json")) is not None:
                note.parent.mkdir(parents=True, exist_ok=True)
                _write_json(note, asdict(found))
            self.recovery.append(found)
        if path is not None:
            save_model(model, path)
        return model

    def _recovery(self) -> dict[str, Any] | None:
        """What recovery did, also where an earlier run of this stage did it."""
        if self.recovery:
            return asdict(self.recovery[-1])
        note = self._path("recovery.json")
        found: dict[str, Any] | None = json.loads(note.read_text(encoding="utf-8")) if note and note.exists() else None
        return found

    def _spectra_of_stage(self) -> Spectra:
        if not METHODS[self.config.method].needs_spectra:
            return {}
        if all(_suffices(self.spectra.get(name), self.config) for name in self.ranks):
            return self.spectra
        return _collect(self.model, self.dataset, self.config, self.ranks, self.report, self.should_stop)

    def _finetune(self, truncated: CTRModel) -> tuple[CTRModel, StageResult]:
        assert self.config.finetune is not None
        self.report(_TRUNCATED, "fine-tuning")
        fitted = fit(
            truncated,
            self.dataset,
            # Fine-tuning can only help: the truncated model is a candidate for the best.
            self.config.finetune.replace(keep_initial=True),
            on_step=self._fit_progress,
            should_stop=self.should_stop,
            checkpoint_path=self._path("fit.safetensors"),
            teacher=self.original,
        )
        at = {row["step"]: row for row in reversed(fitted.history)}
        first, best = at.get(0, {}), at.get(fitted.best_step, {})
        return fitted.model, StageResult(
            name=self.name, ranks=self.ranks,
            truncated_auc=first.get("valid_auc"), truncated_log_loss=first.get("valid_log_loss"),
            valid_auc=best.get("valid_auc"), valid_log_loss=best.get("valid_log_loss"), best_step=fitted.best_step,
            steps=fitted.steps, seconds=fitted.seconds, history=fitted.history, recovery=self._recovery(),
        )  # fmt: skip

    def _measure(self, truncated: CTRModel) -> tuple[CTRModel, StageResult]:
        """The result of a stage without fine-tuning."""
        self.report(_TRUNCATED, "measuring")
        valid = self.dataset.split("valid") if "valid" in self.dataset.splits else ()
        metrics = evaluate_model(truncated, valid, should_stop=self.should_stop) if len(valid) else None  # type: ignore[arg-type]
        auc, log_loss = (metrics.auc, metrics.log_loss) if metrics else (None, None)
        return truncated, StageResult(
            name=self.name, ranks=self.ranks, truncated_auc=auc, truncated_log_loss=log_loss, valid_auc=auc,
            valid_log_loss=log_loss, best_step=0, steps=0, seconds=0.0, history=[], recovery=self._recovery(),
        )  # fmt: skip

    def _fit_progress(self, progress: FitProgress) -> None:
        self.on_step(self.name, progress)
        done = _TRUNCATED + (1 - _TRUNCATED) * progress.fraction
        self.report(done, f"fine-tuning, step {progress.step} of {progress.total_steps}")

    def _check_stop(self) -> None:
        if self.should_stop():
            raise JobCancelled("the compression was cancelled")

    def _path(self, name: str) -> Path | None:
        return self.folder / name if self.folder is not None else None

    def _finished(self) -> tuple[CTRModel, StageResult] | None:
        if self.folder is None or not (self.folder / "stage.json").exists():
            return None
        result = StageResult(**json.loads((self.folder / "stage.json").read_text(encoding="utf-8")))
        return load_model(self.folder / "model.safetensors", self.dataset.schema), result

    def _save(self, model: CTRModel, result: StageResult) -> None:
        """Keep the stage's model and drop what only its running needed. `stage.json` comes last: it says that all is there."""
        if self.folder is None:
            return
        save_model(model, self.folder / "model.safetensors")
        _write_json(self.folder / "stage.json", asdict(result))
        for leftover in self.folder.iterdir():
            if leftover.name not in ("model.safetensors", "stage.json"):
                leftover.unlink()


def _part(on_progress: OnProgress, number: int, total: int, stage: str) -> OnProgress:
    """The progress of one stage as a part of the whole."""
    return lambda fraction, message: on_progress((number + fraction) / total, f"{stage}: {message}")


def _identity(model: CTRModel, config: CompressConfig) -> str:
    """Tells one compression from another: settings, architecture, data and weights."""
    sums = {name: float(tensor.double().sum()) for name, tensor in model.state_dict().items()}
    return fingerprint_of([config.to_dict(), type(model).__name__, model.config.to_dict(), model.schema.to_dict(), sums])


def _claim(folder: Path, identity: str) -> None:
    """Make `folder` this compression's, or see that it is."""
    marker = folder / "run.json"
    if not marker.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(marker, {"identity": identity})
        return
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))["identity"]
    except (ValueError, KeyError, TypeError):
        found = None
    if found != identity:
        raise StorageError(f"{folder.name} holds the checkpoints of another compression; give another folder or remove this one")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Atomically, and on disk when this returns."""
    unfinished = path.with_name(f".{path.name}.part")
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
