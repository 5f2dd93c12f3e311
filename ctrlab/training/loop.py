"""`fit`: one loop for training and fine-tuning, which can be watched, cancelled, killed and resumed."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ctrlab.data.batches import Batch, iterate_batches, num_batches
from ctrlab.data.dataset import Split
from ctrlab.data.schema import FeatureSchema, Fields
from ctrlab.engines.choose import engine_for
from ctrlab.engines.memory import trim_heap
from ctrlab.engines.optim import AdamSettings
from ctrlab.engines.protocol import EngineFactory
from ctrlab.engines.settings import EngineSettings
from ctrlab.engines.threads import lookahead, prefetch
from ctrlab.errors import ConfigError, DataError, JobCancelled
from ctrlab.evaluation.metrics import rows_and_clicks
from ctrlab.evaluation.prediction import evaluate_model, never, to_tensors
from ctrlab.models.base import CTRModel
from ctrlab.training.automatic import resolve, schedule_for
from ctrlab.training.batch_norm import one_row_fault
from ctrlab.training.configs import FitConfig
from ctrlab.training.progress import POLL_SECONDS, REPORT_SECONDS, FitProgress, Reporter, Throttled, ignore, rows_per_second
from ctrlab.training.schedule import BestTracker, is_out_of_patience, learning_rate
from ctrlab.training.state import CheckpointFile, FitState, Progress, identity_of, random_state, restore_random_state


class Dataset(Protocol):
    """What `fit` needs of a dataset; `ctrlab.data.dataset.EncodedDataset` is one."""

    @property
    def schema(self) -> FeatureSchema:
        """The fields and their fingerprint."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the parts that hold rows."""
        ...

    def split(self, name: str) -> Split:
        """The rows of one part."""
        ...


@dataclass(frozen=True)
class FitResult:
    """What came out of a fit.

    model: the best on the validation rows by `config.monitor`, or the last where there are none; on the CPU, in evaluation mode.
    history: a row per evaluation: step, epoch, train_loss, valid_auc, valid_log_loss (the last two None without validation rows).
    best_step: the step whose weights these are; 0 is the initial model. best_auc: its validation AUC.
    seconds: wall clock over all runs of this fit. rows_per_second: of training, evaluations not counted.
    matrix_choices: made by timing; given to `FitConfig.matrix_choices` they are repeated. Empty where nothing was timed.
    config: the settings with every number given that was left to the rows, and with `matrix_choices`: it repeats the fit.
    """

    model: CTRModel
    history: list[dict[str, Any]]
    best_step: int
    best_auc: float | None
    steps: int
    stopped_early: bool
    seconds: float
    rows_per_second: float
    matrix_choices: tuple[str, ...]
    config: FitConfig

    def summary(self) -> dict[str, Any]:
        """Everything but the model and the settings, in plain JSON types."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("model", "config")}


def fit(
    model: CTRModel,
    dataset: Dataset,
    config: FitConfig,
    *,
    on_step: Callable[[FitProgress], None] = ignore,
    should_stop: Callable[[], bool] = never,
    checkpoint_path: Path | None = None,
    checkpoint_seconds: float = 5.0,
    report_seconds: float = REPORT_SECONDS,
    teacher: CTRModel | None = None,
    engine: EngineFactory = engine_for,
) -> FitResult:
    """Train a copy of `model` and return the best on the validation rows; `model` itself is left as it is.

    Args:
        on_step: called after every evaluation, and between them at most every `report_seconds`.
        should_stop: called at most every 0.05 s, between two batches.
        checkpoint_path: where to keep the state. When a file is there the fit resumes from it, and ends with the same weights,
            history and best step, bit for bit, as one that was never interrupted (on the CPU, with the same number of threads;
            CUDA adds gradients in no fixed order). The finished state stays there: fitting again returns at once.
        checkpoint_seconds: time between two writes; longer for models whose writing would take over 5 % of the time, 0 for after
            every step.
        report_seconds: the shortest time between two calls of `on_step`.
        teacher: whose probabilities are the targets of `config.distillation`; of the same data. It is left as it is.
        engine: makes what trains the model; `ctrlab.engines.plain.TorchEngine` for torch's own layers and optimizers.

    Raises:
        ConfigError: CUDA is configured where there is none, distillation without a teacher, or the training diverged.
        DataError: the data has another schema than the model, no rows, or validation rows of one class only.
        StorageError: `checkpoint_path` is damaged or belongs to another fit.
        JobCancelled: `should_stop()` was true.
    """
    device = _device(config)
    train, valid = _checked_splits(model, dataset, config)
    config = resolve(config, len(train))
    if getattr(model.config, "batch_norm", False) and (fault := one_row_fault(len(train), config)):
        raise ConfigError(fault)
    if config.distillation and teacher is None:
        raise ConfigError(f"distillation {config.distillation:g} needs a teacher; give one, or set distillation to 0")
    file = CheckpointFile(checkpoint_path, identity_of(model, train, config, teacher), checkpoint_seconds)
    prepared = _prepare_teacher(teacher, config, device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        reporter = Reporter(on_step, report_seconds)
        run = _Fit(copy.deepcopy(model).to(device), train, valid, config, reporter, should_stop, prepared)
        return run.run(file, engine)


class _ReadyBatch(NamedTuple):
    """A batch on the model's device. done: batches of its epoch that are done with this one."""

    epoch: int
    done: int
    fields: Fields
    labels: Tensor


class _Fit:
    """One run of `fit`: the model in training, its engine and its progress."""

    def __init__(
        self,
        model: CTRModel,
        train: Split,
        valid: Split | None,
        config: FitConfig,
        reporter: Reporter,
        should_stop: Callable[[], bool],
        teacher: CTRModel | None,
    ) -> None:
        self.model, self.teacher = model, teacher
        self.device = next(model.parameters()).device
        self.train, self.valid, self.config = train, valid, config
        self.stop = Throttled(should_stop, POLL_SECONDS)
        self.progress = Progress()
        self.best = BestTracker(config)
        # A last batch of one row has no batch statistics: it is left out.
        self.schedule = schedule_for(config, len(train))
        self.max_rows = len(train) - (len(train) % self.schedule.batch_size == 1 and len(train) > 1)
        self.steps_per_epoch = num_batches(train, self.schedule.batch_size, self.max_rows)
        self.mean_weight = 1.0 if train.weights is None else float(train.weights.mean(dtype=np.float64))
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.reporter = reporter
        reporter.start(self.total_steps, self.schedule.epochs)

    @property
    def total_steps(self) -> int:
        return self.schedule.epochs * self.steps_per_epoch

    def run(self, file: CheckpointFile, make_engine: EngineFactory) -> FitResult:
        torch.manual_seed(self.config.seed)
        state = file.load()
        if state is not None:
            self._restore(state)
        with closing(make_engine(self.model, self._engine_settings())) as self.engine:
            self.engine.set_learning_rate(learning_rate(self.config, self.progress))
            if state is not None:
                self.engine.load_state_tensors(state.optimizer)
            elif self.config.keep_initial and self.valid is not None:
                self._evaluate()
            self._train(file)
            if not self.progress.finished:
                self.progress.finished = True
                file.save(self._state())
        return self._result()

    def _engine_settings(self) -> EngineSettings:
        config = self.config
        adam = AdamSettings(
            optimizer=config.optimizer,  # type: ignore[arg-type]
            learning_rate=config.learning_rate,
            l2_embedding=config.l2_embedding,
            l2_dense=config.l2_dense,
            clip_norm=config.clip_norm,
        )
        return EngineSettings(
            adam=adam,
            compute_dtype=config.compute_dtype,
            matrix_products=config.matrix_products,
            choices=(*config.matrix_choices, *self.progress.choices),
        )

    def _train(self, file: CheckpointFile) -> None:
        """All batches that are left, with the evaluations, reports and checkpoints that fall between them."""
        if self.progress.finished or is_out_of_patience(self.config, self.progress):
            return
        self.reporter.start_lap()
        with closing(prefetch(self._batches())) as batches:
            for batch, following in lookahead(map(self._ready, batches)):
                self._check_stop()
                self.progress.epoch, self.progress.batch = batch.epoch, batch.done
                self._step(batch, following)
                if self._at_evaluation:
                    self._evaluate()
                elif self.reporter.due:
                    self.reporter.report(self.progress, self._train_loss())
                if file.due:
                    file.save(self._state())
                self.reporter.start_lap()
                if is_out_of_patience(self.config, self.progress):
                    break

    def _step(self, batch: _ReadyBatch, following: _ReadyBatch | None) -> None:
        self.engine.set_learning_rate(learning_rate(self.config, self.progress))
        self.engine.zero_grad()
        shares, weights = self._shares(batch.labels)
        targets = self._targets(batch.fields, shares)
        loss = functional.binary_cross_entropy_with_logits(self.engine.logits(batch.fields), targets, weights)
        if following is not None:
            self.engine.prefetch(batch.fields, following.fields)
        loss.backward()
        self.engine.step()
        self._count(loss, len(batch.labels))

    def _count(self, loss: Tensor, rows: int) -> None:
        self.loss_sum += loss.detach()
        self.progress.step += 1
        self.progress.loss_steps += 1
        self.progress.rows += rows
        self.reporter.end_lap(self.progress)

    def _shares(self, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B,) shares of clicks and, where labels are (B, 2) weights, (B,) the rows' weights, whose mean over the split is 1."""
        if labels.ndim == 1:
            return labels, None
        weights = labels.sum(dim=1)
        return labels[:, 0] / weights, weights / self.mean_weight

    def _targets(self, fields: Fields, labels: Tensor) -> Tensor:
        """(B,): the clicks, mixed with the teacher's probabilities where the fit distils. Cross-entropy is linear in them."""
        if self.teacher is None:
            return labels
        with torch.no_grad():
            return torch.lerp(labels.to(torch.float32), torch.sigmoid(self.teacher(fields)), self.config.distillation)

    def _ready(self, drawn: tuple[int, int, Batch]) -> _ReadyBatch:
        epoch, done, (rows, labels) = drawn
        return _ReadyBatch(epoch, done, to_tensors(rows, self.device), torch.from_numpy(labels).to(self.device))

    def _batches(self) -> Iterator[tuple[int, int, Batch]]:
        """The batches that are left: (epoch, number of batches of it that are done with this one, the batch).

        Drawn by another thread: it reads nothing that changes after its start.
        """
        first, start_batch = self.progress.epoch, self.progress.batch
        for epoch in range(first, self.schedule.epochs):
            batches = iterate_batches(
                self.train,
                self.schedule.batch_size,
                shuffle=True,
                seed=epoch_seed(self.config.seed, epoch),
                start_batch=start_batch,
                max_rows=self.max_rows,
            )
            for done, batch in enumerate(batches, start_batch + 1):
                yield epoch, done, batch
            start_batch = 0

    @property
    def _at_evaluation(self) -> bool:
        """Whether the step just made ends one of the epoch's `evaluations_per_epoch` equal parts."""
        done, parts, total = self.progress.batch, self.schedule.evaluations_per_epoch, self.steps_per_epoch
        return done * parts // total > (done - 1) * parts // total

    def _evaluate(self) -> None:
        """Measure the validation rows, append to the history, keep the weights if they are the best so far."""
        progress, train_loss = self.progress, self._train_loss()
        self.engine.settle()
        metrics = None
        if self.valid is not None:
            trim_heap()
            metrics = evaluate_model(self.model, self.valid, should_stop=self.stop)
            trim_heap()
        valid_auc, valid_log_loss = (metrics.auc, metrics.log_loss) if metrics else (None, None)
        progress.history.append(
            {
                "step": progress.step,
                "epoch": progress.epoch,
                "train_loss": train_loss,
                "valid_auc": valid_auc,
                "valid_log_loss": valid_log_loss,
            }
        )
        if metrics is not None:
            self.best.update(self.model, metrics, progress)
        self.reporter.report(progress, train_loss, valid_auc, valid_log_loss)
        self.loss_sum.zero_()
        progress.loss_steps = 0

    def _train_loss(self) -> float | None:
        """Mean loss since the last evaluation, None where there was no step yet."""
        if not self.progress.loss_steps:
            return None
        loss = float(self.loss_sum) / self.progress.loss_steps
        if not math.isfinite(loss):
            raise ConfigError(
                f"the training diverged by step {self.progress.step}: its loss is {loss}; "
                f"lower the learning rate, now {self.config.learning_rate:g}"
            )
        return loss

    def _check_stop(self) -> None:
        if self.stop():
            raise JobCancelled(f"the training was cancelled after {self.progress.step} of {self.total_steps} steps")

    def _state(self) -> FitState:
        self.progress.loss_sum = float(self.loss_sum)
        self.progress.choices = list(self.engine.choices)
        self.reporter.count_seconds(self.progress)
        optimizer = self.engine.state_tensors()
        return FitState(self.progress, self.model.state_dict(), optimizer, random_state(self.device), self.best.weights)

    def _restore(self, state: FitState) -> None:
        self.progress, self.best.weights = state.progress, state.best
        self.model.load_state_dict(state.model)
        self.loss_sum.fill_(state.progress.loss_sum)
        self.reporter.resume_at(state.progress.step)
        restore_random_state(state.random, self.device)

    def _result(self) -> FitResult:
        progress, best = self.progress, self.best.weights
        self.reporter.count_seconds(progress)
        if best is not None:
            self.model.load_state_dict(best)
        of_best = next((row for row in progress.history if row["step"] == progress.best_step), {})
        return FitResult(
            model=self.model.cpu().eval(),
            history=progress.history,
            best_step=progress.best_step if best is not None else progress.step,
            best_auc=of_best.get("valid_auc"),
            steps=progress.step,
            stopped_early=progress.step < self.total_steps,
            seconds=progress.seconds,
            rows_per_second=rows_per_second(progress),
            matrix_choices=self.engine.choices,
            config=self.config.replace(matrix_choices=self.engine.choices),
        )


def _prepare_teacher(teacher: CTRModel | None, config: FitConfig, device: torch.device) -> CTRModel | None:
    """The teacher in evaluation mode on the device; None where nothing is distilled. Copied only where mode or device differ."""
    if teacher is None or not config.distillation:
        return None
    ready = not teacher.training and next(teacher.parameters()).device == device
    return teacher if ready else copy.deepcopy(teacher).to(device).eval()


def _device(config: FitConfig) -> torch.device:
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda is configured, but torch finds no CUDA graphics card here; choose auto or cpu")
    return torch.device(config.device)


def _checked_splits(model: CTRModel, dataset: Dataset, config: FitConfig) -> tuple[Split, Split | None]:
    """The rows to train on and to validate on, once they are known to fit the model."""
    if model.schema != dataset.schema:
        raise DataError(
            f"the model was built for data of another encoding (fingerprint {model.schema.fingerprint}, this dataset has "
            f"{dataset.schema.fingerprint}); choose the dataset it was trained on"
        )
    train = dataset.split(config.rows)
    if len(train) == 0:
        raise DataError(f"the {config.rows} split has no rows; encode the data with a larger share for it")
    valid = dataset.split("valid") if "valid" in dataset.splits else None
    if valid is None or len(valid) == 0:
        return train, None
    rows, clicks = rows_and_clicks(valid.targets())
    if clicks in (0, rows):
        raise DataError(f"all {len(valid)} validation labels are {int(clicks > 0)}; split the data so that it holds both")
    return train, valid


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for the order of rows of one epoch; neighbouring seeds share no epoch."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
