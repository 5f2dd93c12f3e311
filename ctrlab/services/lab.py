"""The whole flow as plain calls that return when the work is done; the command line is a thin layer over it.

    lab = ctrlab.Lab()
    dataset = lab.encode(config)
    model = lab.train(TrainConfig(dataset_id=dataset.id, architecture="deepfm"))
    spectra = lab.spectra(model.id)
    compressed = lab.compress(model.id, ranks={"mlp.2": 64, "mlp.4": 64, "embedding.*": 4}, finetune=FINETUNE)
    print(lab.compare([model.id, compressed.id]))

A call that returns an Artifact is a job in the store: the dashboard shows it, a killed one resumes, and its provenance is
recorded. `plan`, `choose` and `compare` compute their answer in this process; only the measurements they need are jobs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from ctrlab.data.configs import DatasetConfig
from ctrlab.errors import ConfigError, CtrlabError, JobCancelled
from ctrlab.plans.analysis import Analysis
from ctrlab.plans.budgets import Budget
from ctrlab.plans.configs import CompressConfig, PlanSettings, RankPlan
from ctrlab.plans.ranks import plan_ranks, preset_plan
from ctrlab.registry import load
from ctrlab.services import (
    annotations,
    bundles,
    comparison,
    compression,
    controls,
    datasets,
    deletion,
    disk,
    models,
    outside,
    reporting,
    sample,
    segments,
    sensitivity,
    serving,
    shrink,
    spectra,
    speed,
    sweeps,
    timing,
)
from ctrlab.services.factories import Factory
from ctrlab.services.outside import abilities
from ctrlab.services.runner import run_job
from ctrlab.services.speed import DEFAULT_BATCH_SIZE
from ctrlab.services.workspace import Workspace, open_workspace
from ctrlab.storage import Artifact, Job
from ctrlab.storage.trash import TrashEntry
from ctrlab.training.configs import FINETUNE, FitConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from ctrlab.measuring.choose import Choice
    from ctrlab.serving.bundle.read import Bundle

OnProgress = Callable[[Job], None]


class Lab:
    """One home folder, used from Python: each method does its step and returns the stored result.

    Args:
        home: where everything is kept; default CTRLAB_HOME, else the user's data folder.
        url: SQLAlchemy address of another store than the SQLite file in `home`.
        on_progress: called with the running Job a few times a second.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home, Lab(home) as lab:
    ...     lab.workspace.store.jobs.list()
    []
    """

    def __init__(
        self, home: Path | str | None = None, url: str | None = None, on_progress: OnProgress = lambda job: None
    ) -> None:
        self.workspace: Workspace = open_workspace(Path(home) if home else None, url)
        self._on_progress = on_progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.workspace.store.close()

    def encode(self, config: DatasetConfig) -> Artifact:
        """Read, split and encode a table."""
        return self._artifact(datasets.submit_encode(self.workspace, config), "dataset")

    def open_sample(self) -> dict[str, str]:
        """The ids of the sample's dataset, model and spectra, opened now if they were not before."""
        found = sample.sample_ids(self.workspace)
        return found or self.wait(sample.submit_open_sample(self.workspace))

    def train(self, config: models.TrainConfig) -> Artifact:
        """Train a model."""
        return self._artifact(models.submit_train(self.workspace, config), "model")

    def import_checkpoint(self, dataset_id: str, path: Path, name: str = "") -> Artifact:
        """Import a checkpoint that ctrlab wrote."""
        return self._artifact(models.import_checkpoint(self.workspace, dataset_id, path, name), "model")

    def register(
        self,
        module: "nn.Module",
        batches: Iterable[Any],
        *,
        name: str,
        evaluate: "Callable[[nn.Module], float] | None" = None,
        labels: Sequence[float] | None = None,
        forward: "Callable[[nn.Module, Any], Any] | None" = None,
    ) -> Artifact:
        """Store a model trained elsewhere with its layers, sizes and spectra, for the pages and for `compress`.

        Its jobs run in this process, which holds the module. For jobs of the worker and live measurement in the pages use
        `register_factory`, so that other processes can make the module again.

        Args:
            module: any `nn.Module`; it is not changed.
            batches: what it takes, see `ctrlab.spectra`.
            evaluate: evaluate(module) measures a module by your own code; higher is better.
            labels: 0 or 1 of each row of `batches`: AUC and log loss are measured on the last quarter of the batches, and the
                spectra are made of the others.
            forward: forward(module, batch), where a batch is no argument of the module.

        Raises:
            ConfigError: labels and batches do not fit. SpectrumError: the module does not take a batch.
        """
        model = load("ctrlab.anymodule.outside:OutsideModel")(
            module=module, batches=list(batches), evaluate=evaluate, forward=forward,
            labels=None if labels is None else np.asarray(labels),
        )  # fmt: skip
        return outside.register(self.workspace, model, name)

    def register_fuxictr(self, model: "nn.Module", loader: Iterable[Any], *, name: str) -> Artifact:
        """Store a model trained in FuxiCTR, with the batches and labels of a loader; `module` then returns FuxiCTR models."""
        return outside.register(self.workspace, load("ctrlab.interop.fuxictr:outside_model")(model, loader), name)

    def register_deepctr_torch(self, model: "nn.Module", x: Any, y: Any, *, name: str) -> Artifact:
        """Store a model trained in DeepCTR-Torch, with rows and labels as its `evaluate` takes them; see `module`."""
        return outside.register(self.workspace, load("ctrlab.interop.deepctr_torch:outside_model")(model, x, y), name)

    def register_factory(self, address: str, *, name: str = "", on_batch: Callable[[int], None] | None = None) -> Artifact:
        """Store the model that the function `address`, written "module:function", makes in the working folder.

        The function returns (module, batches), (module, batches, labels) or an `OutsideModel`. Jobs and the preview process of
        this user call it again; the weights are those stored now. on_batch(number of batches done) is called after each.

        Raises:
            ConfigError: there is no such function, or it returns something else.
        """
        factory = Factory.here(address)
        model = load("ctrlab.services.work.outside:as_outside")(factory.make(), address)
        return outside.register(self.workspace, model, name or type(model.module).__name__, factory, on_batch)

    def read_weights(self, path: Path, name: str = "") -> Artifact:
        """Store the layers of a .safetensors, .npy or .onnx file and the spectra of its weights; it has no architecture."""
        return self._artifact(outside.submit_weights(self.workspace, path, name), "model")

    def module(self, model_id: str) -> "nn.Module":
        """The module of an outside model; of a compressed one the compressed module, which its own framework trains and serves.

        Raises:
            ConfigError: this process can neither hold nor make it.
        """
        model = models.require_artifact(self.workspace, model_id, "model")
        found: nn.Module = load("ctrlab.services.work.outside:open_module")(self.workspace, model)[1]
        return found

    def spectra(self, model_id: str, **settings: Any) -> Artifact:
        """Spectra of every layer and table; `settings` are those of `SpectraConfig`."""
        config = spectra.SpectraConfig(model_id=model_id, **settings)
        return self._artifact(spectra.submit_spectra(self.workspace, config), "spectra")

    def plan(
        self,
        model_id: str,
        *,
        variance: float | None = None,
        ranks: Mapping[str, int] | None = None,
        preset: str | None = None,
        keep_first_dense: bool = False,
    ) -> RankPlan:
        """A rank plan by variance, by explicit ranks (patterns allowed), or by a preset's name: exactly one of the three."""
        if sum(choice is not None for choice in (variance, ranks, preset)) != 1:
            raise ConfigError("choose ranks by exactly one of variance, ranks and preset")
        profile = models.model_profile(self.workspace, model_id)
        layer_spectra = spectra.load_layer_spectra(self.workspace, self.spectra_of(model_id).id)
        if preset is not None:
            return preset_plan(preset, profile, layer_spectra)
        return plan_ranks(profile, layer_spectra, variance=variance, ranks=ranks, keep_first_dense=keep_first_dense)

    def spectra_of(self, model_id: str) -> Artifact:
        """The model's newest spectra, computed now if there are none."""
        return spectra.latest_spectra(self.workspace, model_id) or self.spectra(model_id)

    def sensitivity(self, model_id: str, **settings: Any) -> Artifact:
        """Accuracy of the model with each layer truncated alone, rank by rank; `settings` are those of `SensitivityConfig`."""
        config = sensitivity.SensitivityConfig(model_id=model_id, spectra_id=self.spectra_of(model_id).id, **settings)
        return self._artifact(sensitivity.submit_sensitivity(self.workspace, config), "sensitivity")

    def sensitivity_of(self, model_id: str) -> Artifact:
        """The model's newest sensitivity, measured now if there is none."""
        return sensitivity.latest_sensitivity(self.workspace, model_id) or self.sensitivity(model_id)

    def speed(self, model_id: str, **settings: Any) -> Artifact:
        """Times of the model's layers at a few ranks; `settings` are those of `SpeedConfig`."""
        config = speed.SpeedConfig(model_id=model_id, spectra_id=self.spectra_of(model_id).id, **settings)
        return self._artifact(speed.submit_speed(self.workspace, config), "speed")

    def speed_of(self, model_id: str, batch_size: int = DEFAULT_BATCH_SIZE) -> Artifact:
        """The model's newest speed at a batch size, measured now if there is none."""
        return speed.latest_speed(self.workspace, model_id, batch_size) or self.speed(model_id, batch_size=batch_size)

    def plan_for_ms(
        self, model_id: str, limit_ms: float, *, batch_size: int = DEFAULT_BATCH_SIZE, multiple_of: int = 1
    ) -> Artifact:
        """A stored plan of least predicted log loss that ran within `limit_ms` a call; its summary lists the attempts.

        Sensitivity and speed are measured first if there are none.

        Raises:
            CtrlabError: no plan does; the message names the nearest.
        """
        config = speed.PlanSpeedConfig(
            model_id=model_id, spectra_id=self.spectra_of(model_id).id, sensitivity_id=self.sensitivity_of(model_id).id,
            speed_id=self.speed_of(model_id, batch_size).id, limit_ms=limit_ms, multiple_of=multiple_of,
        )  # fmt: skip
        return self._artifact(speed.submit_plan_speed(self.workspace, config), "plan")

    def choose(
        self,
        model_id: str,
        *,
        budget: Budget | None = None,
        max_auc_loss: float | None = None,
        kind: str = "bytes",
        **settings: Any,
    ) -> "Choice":
        """The best ranks and bits for a budget, or the smallest plan by `kind` that loses so little AUC: exactly one of the two.

        Plans are made with the model's sensitivity where it was measured, else with what the gradients in its spectra say, and
        measured only where there are none. Candidates are then measured as a whole on validation rows, in this process: half of
        the rows choose, the other half report. `settings` are those of `PlanSettings` (method, bits, aim, multiple_of).
        """
        if (budget is None) == (max_auc_loss is None):
            raise ConfigError("choose a plan by exactly one of budget and max_auc_loss")
        if budget is not None and budget.kind == "latency_ms":
            raise ConfigError("a plan for milliseconds has to be run: use plan_for_ms")
        choice: Choice = load("ctrlab.services.work.choose:choose")(
            self.workspace, model_id, self.spectra_of(model_id).id, self._sensitivity_for_plans(model_id),
            PlanSettings(**settings), budget=budget, max_auc_loss=max_auc_loss, kind=kind,
        )  # fmt: skip
        return choice

    def _sensitivity_for_plans(self, model_id: str) -> str | None:
        """The id of the measured sensitivity; None where there is none and the spectra's gradients take its place."""
        found = sensitivity.latest_sensitivity(self.workspace, model_id)
        if found is not None:
            return found.id
        estimated = spectra.has_loss_estimates(self.workspace, self.spectra_of(model_id).id)
        return None if estimated else self.sensitivity(model_id).id

    def compress(
        self,
        model_id: str,
        *,
        plan: RankPlan | None = None,
        finetune: FitConfig | None = None,
        name: str = "",
        measure: bool = True,
        keep_first_dense: bool = False,
        variance: float | None = None,
        ranks: Mapping[str, int] | None = None,
        preset: str | None = None,
        **settings: Any,
    ) -> Artifact:
        """Compress and fine-tune; `settings` are those of `CompressConfig` (method, bottleneck, order, ...)."""
        chosen = (
            plan
            if plan is not None
            else self.plan(model_id, variance=variance, ranks=ranks, preset=preset, keep_first_dense=keep_first_dense)
        )
        config = self._compression(model_id, chosen, finetune, name, measure, settings)
        return self._artifact(compression.submit_compress(self.workspace, config), "model")

    def compress_with_controls(
        self,
        model_id: str,
        plan: RankPlan,
        *,
        finetune: FitConfig | None = None,
        name: str = "",
        seeds: int = 1,
        **settings: Any,
    ) -> list[Artifact]:
        """Compress and fine-tune, and run the control arms with the same seeds; the compressed model comes first.

        The arms are those of `controls.submit_with_controls`. `settings` are those of `CompressConfig`.
        """
        config = self._compression(model_id, plan, finetune, name, True, settings)
        jobs = controls.submit_with_controls(self.workspace, config, seeds)
        return [self._artifact(job, "model") for job in jobs]

    def _compression(
        self, model_id: str, plan: RankPlan, finetune: FitConfig | None, name: str, measure: bool, settings: Mapping[str, Any]
    ) -> compression.CompressJobConfig:
        return compression.CompressJobConfig(
            model_id=model_id,
            spectra_id=self.spectra_of(model_id).id,
            compress=CompressConfig(plan=plan, finetune=finetune, **settings),
            name=name,
            measure=measure,
        )

    def analyse(self, model_id: str, **settings: Any) -> Analysis:
        """The smallest models at several losses of AUC, and what blocks more; `settings` are those of `AnalysisConfig`.

        Before recovery and fine-tuning, measured on validation rows, of which half choose and half report.
        """
        config = shrink.AnalysisConfig(model_id=model_id, **settings)
        return Analysis.from_dict(self.wait(shrink.submit_analysis(self.workspace, config))["analysis"])

    def shrink(self, model_id: str, **settings: Any) -> tuple[Artifact, str]:
        """A smaller model and the verdict on it, a sentence; `settings` are those of `ShrinkConfig`, with exactly one goal.

        One job from spectra to measurement: ranks and bits, compression, recovery, fine-tuning, controls. A killed one resumes.
        """
        config = shrink.ShrinkConfig(model_id=model_id, **settings)
        result = self.wait(shrink.submit_shrink(self.workspace, config))
        return self.workspace.store.artifacts.get(result["model"]), result["verdict"]

    def evaluate(self, model_ids: Sequence[str], **settings: Any) -> None:
        """Measure accuracy, size and speed; `settings` are those of `EvaluateConfig`."""
        config = comparison.EvaluateConfig(model_ids=tuple(model_ids), **settings)
        self.wait(comparison.submit_evaluate(self.workspace, config))

    def time(self, model_ids: Sequence[str], **settings: Any) -> None:
        """Time models in turns in one job, so that their speeds can be compared; `settings` are those of `TimeConfig`."""
        self.wait(timing.submit_timing(self.workspace, timing.TimeConfig(model_ids=tuple(model_ids), **settings)))

    def integers(self, model_id: str, **settings: Any) -> Artifact:
        """The model's serving form in integers, as ONNX; `settings` are those of `IntegersConfig`.

        Its `summary["advice"]` says which form to serve here; a form that answers otherwise than the float one is not written.
        """
        config = serving.IntegersConfig(model_id=model_id, **settings)
        return self._artifact(serving.submit_integers(self.workspace, config), "serving")

    def bundle(self, model_id: str, **settings: Any) -> Artifact:
        """Encoder and model in one folder that reads raw rows; `settings` are those of `BundleConfig`.

        One that was made with these settings is returned as it is. Its files are in the artifact's folder `bundle`;
        `ctrlab.load_bundle` opens it.
        """
        config = bundles.BundleConfig(model_id=model_id, **settings)
        known = bundles.latest_bundle(self.workspace, model_id, config)
        return known or self._artifact(bundles.submit_bundle(self.workspace, config), "bundle")

    def predict(self, model_id: str, rows: Any) -> "NDArray[np.float32]":
        """The probability of a click of each raw row, float32 (n,); `rows` are those of `Bundle.predict`.

        They are those of the model's bundle in float, without calibration, which the first call makes.
        """
        made = self.bundle(model_id)
        open_bundle: Callable[[Path], Bundle] = load("ctrlab.serving.bundle.read:load_bundle")
        return open_bundle(made.path / bundles.BUNDLE_FOLDER).predict(rows)

    def compare(self, model_ids: Sequence[str], baseline: str | None = None, *, time_again: bool = False) -> pd.DataFrame:
        """The comparison table; what is missing is measured first: accuracy of each model, and speeds of all in one job.

        Args:
            baseline: id of the one that the others are compared with; the first original when not given.
            time_again: time them also where they were timed together before.
        """
        self._measure(model_ids, time_again=time_again)
        return comparison.comparison_table(self.workspace, list(model_ids), baseline)

    def segments(self, model_id: str, reference_id: str, **settings: Any) -> Artifact:
        """Where a model loses against another; read it by `services.segments.segments_table` and `moved_table`.

        Both are measured first where they were not. `settings` are those of `SegmentsConfig`.
        """
        self._measure([model_id, reference_id])
        config = segments.SegmentsConfig(model_id=model_id, reference_id=reference_id, **settings)
        return self._artifact(segments.submit_segments(self.workspace, config), "segments")

    def report(self, model_ids: Sequence[str], path: Path | str, baseline: str | None = None, title: str = "") -> Path:
        """Write the comparison as one HTML file that needs no server; models that were never measured are measured first.

        Args:
            baseline: as for `compare`.
            title: of the page; made from the first model's name when empty.

        Returns:
            The file.

        Raises:
            ConfigError: the file cannot be written.
        """
        self._measure(model_ids)
        return reporting.write_report(self.workspace, model_ids, Path(path), baseline=baseline, title=title)

    def _measure(self, model_ids: Sequence[str], *, time_again: bool = False) -> None:
        found = models.require_models(self.workspace, list(dict.fromkeys(model_ids)))
        able = {model.id: abilities(self.workspace, model) for model in found}
        unmeasured = [
            model_id for model_id, own in able.items()
            if own.allows("measure") and comparison.latest_evaluation(self.workspace, model_id) is None
        ]  # fmt: skip
        if unmeasured:
            self.evaluate(unmeasured)
        timed = [model_id for model_id, own in able.items() if own.allows("time")]
        if timed and (time_again or not timing.timed_together(self.workspace, timed)):
            self.time(timed)

    def sweep(
        self,
        model_id: str,
        *,
        methods: Sequence[str] = ("afm",),
        times: Sequence[float] = (3.0, 5.0, 10.0),
        plans: Mapping[str, RankPlan] | None = None,
        seeds: int = 1,
        finetune: FitConfig | None = FINETUNE,
        name: str = "",
    ) -> list[Artifact]:
        """Compress by every combination of methods, sizes (or named `plans`) and seeds as one group of jobs; the models.

        Raises:
            CtrlabError: none of the combinations can be run.
        """
        self.spectra_of(model_id)
        config = sweeps.SweepConfig(
            model_id=model_id, methods=tuple(methods), times=tuple(times), seeds=seeds, finetune=finetune, name=name
        )
        return self.finish_group(sweeps.submit_sweep(self.workspace, sweeps.plan_sweep(self.workspace, config, plans)).id)

    def finish_group(self, group_id: str) -> list[Artifact]:
        """Do the queued jobs of a group here, and wait for those of a worker; the models they made."""
        return [self._artifact(job_id, "model") for job_id in self.workspace.store.groups.get(group_id).job_ids]

    def annotate(
        self,
        subject_id: str,
        *,
        name: str | None = None,
        note: str | None = None,
        tags: Sequence[str] | None = None,
        star: bool | None = None,
        archived: bool | None = None,
    ) -> Artifact | Job:
        """Name, note, tags, star and archive of a dataset, a model, another result or a job; what is None stays as it is."""
        return annotations.annotate(self.workspace, subject_id, name=name, note=note, tags=tags, star=star, archived=archived)

    def delete(self, ids: Sequence[str], *, cascade: bool = False, permanently: bool = False) -> TrashEntry:
        """Delete datasets, models, results and jobs into the trash, or `permanently`; see `services.deletion.delete`."""
        return deletion.delete(self.workspace, ids, cascade=cascade, permanently=permanently)

    def restore(self, name: str) -> list[Artifact | Job]:
        """Restore what was deleted, by the id of it or of an entry of the trash; everything that came back."""
        return deletion.restore(self.workspace, name)

    def storage(self) -> list[disk.DiskUse]:
        """Bytes on disk by kind of content; `clean` frees what no result needs."""
        return disk.disk_use(self.workspace)

    def clean(self, only: Sequence[str] | None = None, *, dry_run: bool = False) -> list[disk.Freeable]:
        """Free checkpoints of ended jobs, used uploads, the trash and files stored twice, or those in `only`; what was freed.

        Args:
            only: some of "checkpoints", "uploads", "trash" and "duplicates".
            dry_run: free nothing; the result is what would be freed.
        """
        if not dry_run:
            return disk.clean(self.workspace, only)
        return [found for found in disk.freeable(self.workspace) if only is None or found.key in only]

    def wait(self, job_id: str) -> dict[str, Any]:
        """Do a queued job here, or watch the worker that has it; its result, or CtrlabError with its error."""
        job = run_job(self.workspace, job_id, on_change=self._on_progress)
        if job.state == "succeeded":
            return job.result
        if job.state == "cancelled":
            raise JobCancelled(f"{job.title} was cancelled; `jobs retry {job.id}` continues it")
        raise CtrlabError(job.error or f"{job.title} {job.state}; see `jobs log {job.id}`")

    def _artifact(self, job_id: str, kind: str) -> Artifact:
        return self.workspace.store.artifacts.get(self.wait(job_id)[kind])
